package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
)

// Files are certificates that somebody else makes and renews, such as cert-manager: a
// folder with tls.crt, tls.key and the authority's ca.crt.
type Files struct {
	served
	dir   string
	vault Vault // for Publish alone
}

// NewFiles makes what serves the certificates of a folder, and publishes its ca.crt.
func NewFiles(dir string, v Vault) *Files { return &Files{dir: dir, vault: v} }

// Run looks at the folder until ctx ends, and calls ready when there are certificates.
func (f *Files) Run(ctx context.Context, ready func()) {
	keepAt(ctx, "The certificates could not be read", f.read, ready)
}

func (f *Files) read(ctx context.Context) error {
	leaf, err := tls.LoadX509KeyPair(filepath.Join(f.dir, "tls.crt"), filepath.Join(f.dir, "tls.key"))
	if err != nil {
		return err
	}
	if err := leaf.Leaf.VerifyHostname(ServerName); err != nil {
		return fmt.Errorf("%s/tls.crt: agents ask for %s: %w", f.dir, ServerName, err)
	}
	ca, err := os.ReadFile(filepath.Join(f.dir, "ca.crt"))
	if err != nil {
		return err
	}
	if err := f.vault.Publish(ctx, ca); err != nil {
		return fmt.Errorf("publish whom to trust: %w", err)
	}
	f.leaf.Store(&leaf)
	return nil
}
