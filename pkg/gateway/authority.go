package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// A Vault keeps the controller's keys, for all of its replicas, and publishes whom agents
// may trust.
type Vault interface {
	// Load returns what is kept, nothing if that was nothing, and its version.
	Load(ctx context.Context) (kept map[string][]byte, version string, err error)
	// Store replaces what has that version; ErrConflict, if another replica did.
	Store(ctx context.Context, kept map[string][]byte, version string) error
	// Publish publishes certificates of authorities.
	Publish(ctx context.Context, bundle []byte) error
}

// ErrConflict is of what another replica has changed meanwhile.
var ErrConflict = errors.New("another replica was faster")

// How long certificates are good for, and when they are replaced.
const (
	caYears    = 10
	caReplace  = 365 * 24 * time.Hour // before its end
	caNotice   = 24 * time.Hour       // for which agents have known a new one before it is used
	leafDays   = 90
	leafAge    = 60 * 24 * time.Hour // at which it is replaced
	clockSkew  = time.Hour           // that other clocks may be behind
	lookAtKeys = 10 * time.Minute
	retryKeys  = 5 * time.Second
)

// Names of what is kept. Those of the certificate that is served are those of Secrets of
// type kubernetes.io/tls.
const (
	keptCA        = "ca.crt"
	keptCAKey     = "ca.key"
	keptNextCA    = "next-ca.crt"
	keptNextCAKey = "next-ca.key"
	keptOldCA     = "old-ca.crt"
	keptLeaf      = "tls.crt"
	keptLeafKey   = "tls.key"
)

// An Authority makes the controller's certificates and renews them in time.
type Authority struct {
	served
	vault Vault
	now   func() time.Time
}

// NewAuthority makes an authority that has no certificate yet.
func NewAuthority(v Vault) *Authority { return NewAuthorityAt(v, time.Now) }

// NewAuthorityAt is NewAuthority with a clock.
func NewAuthorityAt(v Vault, now func() time.Time) *Authority { return &Authority{vault: v, now: now} }

// Run looks after the certificates until ctx ends, and calls ready when there are some.
func (a *Authority) Run(ctx context.Context, ready func()) {
	keepAt(ctx, "The certificates could not be looked after", a.Renew, ready)
}

// Renew makes what is missing or about to end, publishes whom to trust, and then serves.
func (a *Authority) Renew(ctx context.Context) error {
	for {
		kept, version, err := a.vault.Load(ctx)
		if err != nil {
			return fmt.Errorf("load the keys: %w", err)
		}
		next, changed, err := renewed(kept, a.now())
		if err != nil {
			return err
		}
		if changed {
			err := a.vault.Store(ctx, next, version)
			if errors.Is(err, ErrConflict) {
				continue
			}
			if err != nil {
				return fmt.Errorf("store the keys: %w", err)
			}
		}
		if err := a.vault.Publish(ctx, bundle(next)); err != nil {
			return fmt.Errorf("publish whom to trust: %w", err)
		}
		leaf, err := tls.X509KeyPair(next[keptLeaf], next[keptLeafKey])
		if err != nil {
			return fmt.Errorf("the certificate: %w", err)
		}
		a.leaf.Store(&leaf)
		return nil
	}
}

// bundle is all that agents may trust: what may be served now, was, or will be.
func bundle(kept map[string][]byte) []byte {
	return bytes.Join([][]byte{kept[keptCA], kept[keptNextCA], kept[keptOldCA]}, nil)
}

// renewed returns what is to be kept from now on. It asks nobody.
func renewed(kept map[string][]byte, now time.Time) (next map[string][]byte, changed bool, err error) {
	next = map[string][]byte{}
	for name, value := range kept {
		next[name] = value
	}
	ca, caErr := readPair(next[keptCA], next[keptCAKey])
	if caErr != nil || now.After(ca.NotAfter) {
		next, changed = map[string][]byte{}, true
		if kept[keptCA] != nil { // agents know no other yet
			next[keptOldCA] = kept[keptCA]
		}
		if next[keptCA], next[keptCAKey], err = makeCA(now); err != nil {
			return nil, false, err
		}
	} else if now.After(ca.NotAfter.Add(-caReplace)) {
		coming, err := readPair(next[keptNextCA], next[keptNextCAKey])
		switch {
		case err != nil:
			changed = true
			if next[keptNextCA], next[keptNextCAKey], err = makeCA(now); err != nil {
				return nil, false, err
			}
		case now.After(coming.NotBefore.Add(clockSkew + caNotice)):
			changed = true
			next[keptOldCA] = next[keptCA]
			next[keptCA], next[keptCAKey] = next[keptNextCA], next[keptNextCAKey]
			delete(next, keptNextCA)
			delete(next, keptNextCAKey)
			delete(next, keptLeaf)
		}
	}
	if old, err := readCertificate(next[keptOldCA]); next[keptOldCA] != nil && (err != nil || now.After(old.NotAfter)) {
		delete(next, keptOldCA)
		changed = true
	}
	leaf, err := readPair(next[keptLeaf], next[keptLeafKey])
	if err != nil || now.After(leaf.NotBefore.Add(clockSkew+leafAge)) || !issuedBy(leaf, next[keptCA]) {
		changed = true
		if next[keptLeaf], next[keptLeafKey], err = makeLeaf(next[keptCA], next[keptCAKey], now); err != nil {
			return nil, false, err
		}
	}
	return next, changed, nil
}

func readPair(certificate, key []byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

func readCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func issuedBy(leaf *x509.Certificate, ca []byte) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: ServerName, CurrentTime: leaf.NotBefore.Add(clockSkew)})
	return err == nil
}

func makeCA(now time.Time) (certificate, key []byte, err error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "csi-dmthin"}, NotBefore: now.Add(-clockSkew), NotAfter: now.AddDate(caYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return makeCertificate(template, nil, nil)
}

func makeLeaf(ca, caKey []byte, now time.Time) (certificate, key []byte, err error) {
	pair, err := tls.X509KeyPair(ca, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("the authority: %w", err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: ServerName}, DNSNames: []string{ServerName},
		NotBefore: now.Add(-clockSkew), NotAfter: now.AddDate(0, 0, leafDays),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return makeCertificate(template, pair.Leaf, pair.PrivateKey)
}

// makeCertificate has a certificate signed by a parent, or by itself.
func makeCertificate(template, parent *x509.Certificate, signer any) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
