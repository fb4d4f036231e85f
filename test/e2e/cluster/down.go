package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile is locked by whoever makes, runs or removes the cluster. It is no part of
// the cluster's folder, which comes and goes.
const lockFile = "/run/lock/csi-dmthin-e2e"

type lock struct{ file *os.File }

// acquire takes the lock.
func acquire() (*lock, error) {
	if err := os.MkdirAll(filepath.Dir(lockFile), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		defer file.Close()
		holder := make([]byte, 200)
		n, _ := file.Read(holder)
		return nil, fmt.Errorf("another one is at work, %s: wait for it or interrupt it", strings.TrimSpace(string(holder[:n])))
	}
	_ = file.Truncate(0) // who holds the lock is for people to read
	_, _ = fmt.Fprintf(file, "process %d, cluster %s\n", os.Getpid(), strings.Join(os.Args[1:], " "))
	return &lock{file}, nil
}

func (l *lock) release() { l.file.Close() }

// claim takes the lock and makes place for a new cluster. One that `cluster up` made
// and that lives is not touched; any other is what a killed process left.
func claim(s *steps) (*lock, error) {
	l, err := acquire()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(home); errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if isFile(keptFile()) && len(inhabitants()) > 0 {
		l.release()
		return nil, errors.New("there is a cluster already, and this machine has room for one: `cluster down` ends it")
	}
	if err := removeCluster(); err != nil {
		l.release()
		return nil, err
	}
	s.done("removed what was left of an earlier cluster")
	return l, nil
}

// keptFile tells a cluster that is to stay from one whose maker died.
func keptFile() string { return filepath.Join(home, "kept") }

func markKept() error { return os.WriteFile(keptFile(), nil, 0o644) }

// down is the command that removes the cluster.
func down(_ context.Context, args []string) error {
	if len(args) > 0 {
		return errUsage
	}
	l, err := acquire()
	if err != nil {
		return err
	}
	defer l.release()
	s := newSteps()
	if err := removeCluster(); err != nil {
		return err
	}
	s.done("down")
	return nil
}

// removeCluster leaves nothing of any cluster, whatever state it is in. The nodes' boxes
// are asked first, for they clean up; everything else in the network is killed.
func removeCluster() error {
	cutAll()
	if err := killInhabitants(); err != nil {
		return err
	}
	if err := removeNetwork(); err != nil {
		return err
	}
	return os.RemoveAll(home)
}

func cutAll() {
	var group sync.WaitGroup
	for n := Node(1); n <= maxNodes; n++ {
		if n.running() {
			group.Go(func() { _ = n.cutPower() }) // else it is killed below
		}
	}
	group.Wait()
}

func killInhabitants() error {
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		pids := inhabitants()
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("processes %v of the cluster cannot be killed", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
