package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

const day = 24 * time.Hour

// handshake is one of an agent that trusts what is published, at a time.
func handshake(t *testing.T, config *tls.Config, trust *x509.CertPool, at time.Time) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	return tls.Client(raw, &tls.Config{RootCAs: trust, ServerName: gateway.ServerName, Time: func() time.Time { return at }}).Handshake()
}

// For twenty years, looked at each day: agents that read what is published at each
// dial trust what is served then; agents that read it a day ago do, too, but for the
// very first.
func TestCertificatesForTwentyYears(t *testing.T) {
	v := &vault{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := gateway.NewAuthorityAt(v, func() time.Time { return now })
	var yesterday []*x509.CertPool // what was published then, at each look
	leaves, stores := map[string]bool{}, 0
	for i := range 20 * 365 {
		if err := keys.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		trust, err := v.trust()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := keys.TLS().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaves[string(leaf.Certificate[0])] = true
		if now.After(leaf.Leaf.NotAfter.Add(-20 * day)) {
			t.Fatalf("%v: the certificate ends %v", now, leaf.Leaf.NotAfter)
		}
		pools := []*x509.CertPool{trust}
		if yesterday = append(yesterday, trust); len(yesterday) > 1 {
			pools = append(pools, yesterday[len(yesterday)-2])
		}
		for age, pool := range pools {
			if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: gateway.ServerName, CurrentTime: now}); err != nil {
				t.Fatalf("%v (look %d): what was published %d days ago: %v", now, i, age, err)
			}
		}
		now = now.Add(day)
		stores = v.stores
	}
	if len(leaves) < 20*365/61 || len(leaves) > 20*365/55 {
		t.Errorf("there were %d certificates", len(leaves))
	}
	t.Logf("%d certificates, stored %d times", len(leaves), stores)
}

// Two replicas that start at once end with the same authority.
func TestReplicasAgree(t *testing.T) {
	v := &vault{}
	one, two := gateway.NewAuthority(v), gateway.NewAuthority(v)
	first := true
	v.before = func() {
		if first {
			first = false
			if err := two.Renew(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if err := one.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	trust, err := v.trust()
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []*gateway.Authority{one, two} {
		if err := handshake(t, keys.TLS(), trust, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if v.stores != 1 {
		t.Errorf("they were stored %d times", v.stores)
	}
}

// What is kept may be damaged or deleted by hand: then new ones are made.
func TestKeysThatAreNoKeys(t *testing.T) {
	for what, kept := range map[string]map[string][]byte{
		"nothing": {}, "rubbish": {"ca.crt": []byte("x"), "ca.key": []byte("y"), "tls.crt": []byte("z")}, "other": {"note": []byte("hello")},
	} {
		t.Run(what, func(t *testing.T) {
			v := &vault{kept: kept}
			keys := gateway.NewAuthority(v)
			if err := keys.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			trust, err := v.trust()
			if err != nil {
				t.Fatal(err)
			}
			if err := handshake(t, keys.TLS(), trust, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Certificates change while agents come and go and volumes are made: no call hears of it.
func TestRotationUnderLoad(t *testing.T) {
	c := newCluster(t)
	now := time.Now()
	var mu sync.Mutex
	keys := gateway.NewAuthorityAt(c.vault, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	g := c.controllerWith(keys, "127.0.0.1:0")
	c.node("na", 32*gib)
	g.knows(t, "na")
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			r := request("v", 1<<20, "na")
			answer, err := g.CreateVolume(t.Context(), r)
			if err == nil {
				_, err = g.DeleteVolume(t.Context(), deletion(answer))
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 200 { // 400 days
		mu.Lock()
		now = now.Add(2 * day)
		mu.Unlock()
		if err := keys.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	all.Wait()
}

// Certificates of somebody else are served and published, if they are for agents.
func TestCertificatesFromFiles(t *testing.T) {
	source := &vault{}
	if err := gateway.NewAuthority(source).Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func() {
		for _, name := range []string{"ca.crt", "tls.crt", "tls.key"} {
			if err := os.WriteFile(filepath.Join(dir, name), source.kept[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	v := &vault{}
	files := gateway.NewFiles(dir, v)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	files.Run(ctx, func() { t.Error("ready without certificates") })
	cancel()
	write()
	ctx, cancel = context.WithCancel(t.Context())
	ready := false
	files.Run(ctx, func() { ready = true; cancel() })
	trust, err := v.trust()
	if err != nil || !ready {
		t.Fatal(ready, err)
	}
	if err := handshake(t, files.TLS(), trust, time.Now()); err != nil {
		t.Error(err)
	}
	if err := handshake(t, files.TLS(), x509.NewCertPool(), time.Now()); err == nil {
		t.Error("an agent trusts what was not published")
	} else if unknown := new(x509.UnknownAuthorityError); !errors.As(err, unknown) {
		t.Error(err)
	}
}
