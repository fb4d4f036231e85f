package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"

	"k8s.io/klog/v2"
)

// served is the certificate that agents are shown now.
type served struct {
	leaf atomic.Pointer[tls.Certificate]
}

// TLS is for the listener to which agents come.
func (s *served) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.leaf.Load(); c != nil {
				return c, nil
			}
			return nil, errors.New("there is no certificate yet")
		},
	}
}

// keepAt does something again and again, and sooner where it failed.
func keepAt(ctx context.Context, failed string, do func(context.Context) error, ready func()) {
	for first := true; ctx.Err() == nil; {
		err := do(ctx)
		wait := lookAtKeys
		switch {
		case err != nil:
			klog.FromContext(ctx).Error(err, failed)
			wait = retryKeys
		case first:
			first = false
			ready()
		}
		sleep(ctx, wait)
	}
}
