package main

import (
	"errors"
	"os"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// lostPools are those that were given up: a directory has a file for each, named by its
// key. It is read once a second at most, since the controller asks about all pools.
type lostPools struct {
	dir string

	mu   sync.Mutex
	read time.Time
	keys map[string]bool
}

const readLostAgain = time.Second

// has reports whether a pool was given up. What cannot be read stays as it was.
func (l *lostPools) has(key string) bool {
	if l.dir == "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.read) >= readLostAgain {
		l.read = now
		entries, err := os.ReadDir(l.dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
			l.keys = nil
		case err != nil:
			klog.ErrorS(err, "Which pools are lost cannot be read")
		default:
			l.keys = map[string]bool{}
			for _, e := range entries {
				l.keys[e.Name()] = true
			}
		}
	}
	return l.keys[key]
}
