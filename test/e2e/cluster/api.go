package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// An api asks the API server, for which kubectl would take a tenth of a second of CPU.
type api struct{ client *http.Client }

func newAPI() (*api, error) {
	ca, err := os.ReadFile(secrets("ca.crt"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(secrets("kubelet-client.crt"), secrets("kubelet-client.key"))
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca)
	return &api{&http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DialContext:     dialInNetwork,
			TLSClientConfig: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{pair}},
		},
	}}, nil
}

func dialInNetwork(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = inNetwork(func() error {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// get reads an object.
func (a *api) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, apiEndpoint+path, nil)
	if err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// A condition is one of an object's status.
type condition struct{ Type, Status, Message string }

type conditioned struct {
	Status struct{ Conditions []condition }
}

// is asks whether an object has the condition.
func (a *api) is(ctx context.Context, path, wanted string) error {
	var object conditioned
	if err := a.get(ctx, path, &object); err != nil {
		return err
	}
	i := slices.IndexFunc(object.Status.Conditions, func(c condition) bool { return c.Type == wanted })
	switch {
	case i < 0:
		return errors.New("it does not say whether it is " + wanted)
	case object.Status.Conditions[i].Status != "True":
		return errors.New("not " + wanted + ": " + object.Status.Conditions[i].Message)
	}
	return nil
}

func (a *api) nodeReady(ctx context.Context, n Node) error {
	return a.is(ctx, "/api/v1/nodes/"+n.name(), "Ready")
}

func (a *api) available(ctx context.Context, deployment string) error {
	return a.is(ctx, "/apis/apps/v1/namespaces/kube-system/deployments/"+deployment, "Available")
}
