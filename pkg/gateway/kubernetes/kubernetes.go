// Package kubernetes is what a gateway has of Kubernetes: the review of agents' tokens, a
// Secret and a ConfigMap for certificates, and which volumes are known.
package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A Cluster is the one that the controller runs in.
type Cluster struct {
	Namespace      string
	ServiceAccount string // of the agents
	Secret         string // that keeps the keys
	ConfigMap      string // that publishes whom to trust

	Core           coreclient.CoreV1Interface
	Authentication authenticationclient.AuthenticationV1Interface
}

// Connect gives c its clients. When a controller starts, all agents come at once, and
// client-go's own limits would let the last of 500 wait for a minute and a half; all must be
// there when it has started.
func (c *Cluster) Connect() error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	if c.Core, err = coreclient.NewForConfig(config); err != nil {
		return err
	}
	c.Authentication, err = authenticationclient.NewForConfig(config)
	return err
}

// nodeNameKey is where the API server puts the node of the pod that a token is bound to.
const nodeNameKey = "authentication.kubernetes.io/node-name"

// Review tells on which node the pod is that a token was made for. It must be one of the
// agents' service account, and for this audience: any pod may have one for any.
func (c *Cluster) Review(ctx context.Context, token string) (node string, err error) {
	review, err := c.Authentication.TokenReviews().Create(ctx, &authentication.TokenReview{
		Spec: authentication.TokenReviewSpec{Token: token, Audiences: []string{gateway.Audience}},
	}, meta.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("review a token: %w", err)
	}
	want := "system:serviceaccount:" + c.Namespace + ":" + c.ServiceAccount
	st := review.Status
	nodes := st.User.Extra[nodeNameKey]
	switch {
	case !st.Authenticated:
		return "", fmt.Errorf("%w: its token: %s", gateway.ErrRefused, st.Error)
	case !slices.Contains(st.Audiences, gateway.Audience):
		return "", fmt.Errorf("%w: its token is for %s, not for %s", gateway.ErrRefused, strings.Join(st.Audiences, ", "), gateway.Audience)
	case st.User.Username != want:
		return "", fmt.Errorf("%w: its token is that of %s, not of %s", gateway.ErrRefused, st.User.Username, want)
	case len(nodes) != 1 || nodes[0] == "":
		return "", fmt.Errorf("%w: its token names no node: Kubernetes 1.30 or later is needed", gateway.ErrRefused)
	}
	return nodes[0], nil
}

// labels tell people whose the objects are. They are no release's: an upgrade must not
// take the keys away.
var labels = map[string]string{"app.kubernetes.io/name": "csi-dmthin", "app.kubernetes.io/managed-by": "csi-dmthin"}

// Load returns the keys.
func (c *Cluster) Load(ctx context.Context) (map[string][]byte, string, error) {
	s, err := c.Core.Secrets(c.Namespace).Get(ctx, c.Secret, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	return s.Data, s.ResourceVersion, nil
}

// Store replaces the keys.
func (c *Cluster) Store(ctx context.Context, kept map[string][]byte, version string) error {
	s := &core.Secret{
		ObjectMeta: meta.ObjectMeta{Name: c.Secret, Namespace: c.Namespace, ResourceVersion: version, Labels: labels},
		Data:       kept,
	}
	var err error
	if version == "" {
		_, err = c.Core.Secrets(c.Namespace).Create(ctx, s, meta.CreateOptions{})
	} else {
		_, err = c.Core.Secrets(c.Namespace).Update(ctx, s, meta.UpdateOptions{})
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", gateway.ErrConflict, err)
	}
	return err
}

const bundleKey = "ca.crt"

// Publish writes the certificates for agents, if they are not there already.
func (c *Cluster) Publish(ctx context.Context, bundle []byte) error {
	published := c.Core.ConfigMaps(c.Namespace)
	have, err := published.Get(ctx, c.ConfigMap, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = published.Create(ctx, &core.ConfigMap{
			ObjectMeta: meta.ObjectMeta{Name: c.ConfigMap, Namespace: c.Namespace, Labels: labels},
			Data:       map[string]string{bundleKey: string(bundle)},
		}, meta.CreateOptions{})
		return err
	case err != nil:
		return err
	case have.Data[bundleKey] == string(bundle):
		return nil
	}
	have = have.DeepCopy()
	have.Data = maps.Clone(have.Data)
	if have.Data == nil {
		have.Data = map[string]string{}
	}
	have.Data[bundleKey] = string(bundle)
	_, err = published.Update(ctx, have, meta.UpdateOptions{})
	return err
}

// volumePage is how many PersistentVolumes are asked for at once.
const volumePage = 500

// VolumeHandles returns the ids of the volumes that PersistentVolumes of this driver name.
func (c *Cluster) VolumeHandles(ctx context.Context) (map[string]bool, error) {
	ids := map[string]bool{}
	for o := (meta.ListOptions{Limit: volumePage}); ; {
		page, err := c.Core.PersistentVolumes().List(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("list PersistentVolumes: %w", err)
		}
		for _, pv := range page.Items {
			if from := pv.Spec.CSI; from != nil && from.Driver == plugin.Name {
				ids[from.VolumeHandle] = true
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return ids, nil
		}
	}
}
