package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An authority issues the certificates that the cluster's parts know each other by.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	next int64
}

// secrets is the folder of keys, certificates and kubeconfigs.
func secrets(name string) string { return filepath.Join(home, "secrets", name) }

func kubeconfig(user string) string { return secrets(user + ".conf") }

// makeSecrets writes all that the cluster's parts need to trust each other.
func makeSecrets(p *Plan) error {
	if err := os.MkdirAll(secrets(""), 0o700); err != nil {
		return err
	}
	a, err := newAuthority()
	if err != nil {
		return err
	}
	if err := a.issueServers(p); err != nil {
		return err
	}
	if err := writeAccountKeys(); err != nil {
		return err
	}
	users := []struct{ name, user, group string }{
		{"admin", "admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
	}
	for _, n := range p.nodes() {
		users = append(users, struct{ name, user, group string }{n.name(), "system:node:" + n.name(), "system:nodes"})
	}
	for _, u := range users {
		if err := a.issueUser(u.name, u.user, u.group); err != nil {
			return err
		}
	}
	return nil
}

func newAuthority() (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, next: 1}
	if err := a.signItself(); err != nil {
		return nil, err
	}
	return a, writePair("ca", a.pem, key)
}

func (a *authority) signItself() (err error) {
	a.cert = a.template("csi-dmthin-e2e")
	a.cert.IsCA, a.cert.BasicConstraintsValid = true, true
	a.cert.KeyUsage |= x509.KeyUsageCertSign
	a.cert.ExtKeyUsage = nil
	if a.pem, err = a.sign(a.cert, a.key); err != nil {
		return err
	}
	a.cert, err = parseCertificate(a.pem)
	return err
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	return x509.ParseCertificate(block.Bytes)
}

func (a *authority) template(name string) *x509.Certificate {
	now := time.Now()
	serial := big.NewInt(a.next)
	a.next++
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// issueServers issues the API server's certificate, which pods know by the name and
// address of its Service, the one that it shows to kubelets, and those of the kubelets. They could
// make their own, but do not make sure that it is on the disk before they lose power.
func (a *authority) issueServers(p *Plan) error {
	api := a.serverTemplate("kube-apiserver", gateway, apiService, "127.0.0.1")
	api.DNSNames = []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	client := a.template("kube-apiserver-kubelet-client")
	client.Subject.Organization = []string{"system:masters"}
	templates := map[string]*x509.Certificate{"apiserver": api, "kubelet-client": client}
	for _, n := range p.nodes() {
		templates[n.name()] = a.serverTemplate("system:node:"+n.name(), n.address())
	}
	for name, template := range templates {
		key, err := newKey()
		if err != nil {
			return err
		}
		cert, err := a.sign(template, key)
		if err != nil {
			return err
		}
		if err := writePair(name, cert, key); err != nil {
			return err
		}
	}
	return nil
}

func (a *authority) serverTemplate(name string, addresses ...string) *x509.Certificate {
	server := a.template(name)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, address := range addresses {
		server.IPAddresses = append(server.IPAddresses, net.ParseIP(address))
	}
	return server
}

// issueUser writes a kubeconfig.
func (a *authority) issueUser(name, user, group string) error {
	template := a.template(user)
	if group != "" {
		template.Subject.Organization = []string{group}
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	cert, err := a.sign(template, key)
	if err != nil {
		return err
	}
	keyPEM, err := keyToPEM(key)
	if err != nil {
		return err
	}
	return os.WriteFile(kubeconfig(name), []byte(renderKubeconfig(a.pem, cert, keyPEM)), 0o600)
}

func renderKubeconfig(ca, cert, key []byte) string {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "%s", certificate-authority-data: %s}}]
users: [{name: e2e, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: e2e, context: {cluster: e2e, user: e2e}}]
current-context: e2e
`, apiEndpoint, encode(ca), encode(cert), encode(key))
}

// writeAccountKeys writes the keys of the tokens that pods have.
func writeAccountKeys() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePair("accounts", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), key)
}

// writePair writes name.crt, or whatever is public, and name.key.
func writePair(name string, public []byte, key *ecdsa.PrivateKey) error {
	private, err := keyToPEM(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(secrets(name+".crt"), public, 0o600); err != nil {
		return err
	}
	return os.WriteFile(secrets(name+".key"), private, 0o600)
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func keyToPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}
