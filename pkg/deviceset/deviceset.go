package deviceset

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/namelock"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A DeviceSet is a thin pool with the names of its devices. All its methods may be
// called by several goroutines at once.
//
// No lock is held while the kernel is asked for what takes long (activation,
// removal, a suspend, a discard), nor over mkfs or a mount, but that of the device
// itself.
type DeviceSet struct {
	machine  Machine
	root     string
	config   Config
	owner    owner
	warnings []string

	rootLock io.Closer
	slots    [2]Block
	store    *store
	pool     *pool
	locks    namelock.Locks
	worker   *worker
	label    *label
	unleased *unleased // until the label is open
	events   chan Event
	measured measured

	mu       sync.Mutex
	begun    bool  // the journal is open for writing
	down     error // why there is no pool to ask
	readOnly error // why nothing may be changed
	shut     bool
	found    findings
	sparse   error // why the data file has less than it was to be given
	time     timeCount
	ids      dm.DeviceID // the last one given out

	beginning sync.Mutex     // one at a time begins
	calls     sync.WaitGroup // verbs that are being carried out; none begins once shut is set
	ending    sync.Mutex     // one at a time ends
	gone      bool           // the end has come; under ending
	patience  time.Duration

	lastBusyWait time.Duration // how long a device that is open is waited for, in the end
}

// patience is how long the end waits for calls that hang.
const patience = 30 * time.Second

// owner is whom the directories under the root belong to.
type owner struct{ uid, gid int }

// An IDMap is a range of user or group ids inside a container and outside.
type IDMap struct {
	ContainerID int
	HostID      int
	Size        int
}

// RootOf returns what id 0 of a container is outside; without maps, 0.
func RootOf(maps []IDMap) (int, error) {
	if len(maps) == 0 {
		return 0, nil
	}
	at := slices.IndexFunc(maps, func(m IDMap) bool { return m.ContainerID <= 0 && 0 < m.ContainerID+m.Size })
	if at < 0 {
		return 0, fmt.Errorf("%w: the id maps %v have nothing for id 0", ErrInvalid, maps)
	}
	return maps[at].HostID - maps[at].ContainerID, nil
}

// findings are what a look at the whole pool found, beside what was expected.
type findings struct {
	looked  bool
	bad     map[string]error // devices that may not be used, by name
	orphans []dm.DeviceID    // in the pool, and nobody's
	ghosts  []string         // in the journal, and not in the pool
	err     error            // why the pool could not be looked at
}

// mutable returns nil if the pool may be changed now, and begins to if it has to.
func (s *DeviceSet) mutable() error {
	s.mu.Lock()
	begun, err := s.begun, errors.Join(s.shutError(), s.readOnly, s.down)
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !begun:
		if err := s.begin(); err != nil {
			return err
		}
	}
	return s.store.writable()
}

func (s *DeviceSet) shutError() error {
	if s.shut {
		return ErrShutDown
	}
	return nil
}

// ended returns nil until the set is shut down.
func (s *DeviceSet) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shutError()
}

// Down returns why there is no pool to ask, such as a disk that was not there when the
// set was opened. It stays so until the set is opened anew.
func (s *DeviceSet) Down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// Poisoned returns the error of the journal after which nothing is written to it any more:
// only what is read anew from the medium is known, so the set must be opened anew.
func (s *DeviceSet) Poisoned() error {
	s.mu.Lock()
	st := s.store
	s.mu.Unlock()
	if st == nil {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.poison
}

// up returns nil if there is a pool to ask.
func (s *DeviceSet) up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.shutError(), s.down)
}

// usable returns a device that may be activated, or why it may not.
func (s *DeviceSet) usable(name string) (device, error) {
	d, err := s.lookup(name)
	if err != nil {
		return device{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.found.bad[name]; err != nil {
		return device{}, err
	}
	if s.readOnly != nil && !s.found.looked {
		return device{}, fmt.Errorf("%s cannot be compared with the pool: %w", name, s.readOnly)
	}
	return d, nil
}

// alone locks a device's name and calls do with the device, if it may be used.
func (s *DeviceSet) alone(name string, do func(device) error) error {
	unlock := s.locks.Lock(name)
	defer unlock()
	if err := s.up(); err != nil {
		return err
	}
	d, err := s.usable(name)
	if err != nil {
		return err
	}
	return do(d)
}

// lookup returns a device by name.
func (s *DeviceSet) lookup(name string) (d device, err error) {
	s.store.view(func(c *catalog) {
		var found *device
		if found, err = c.device(name); err == nil {
			d = *found
		}
	})
	return d, err
}

// during carries out a verb, unless the set is shut down; Shutdown waits for it. Verbs
// do not call each other through here.
func (s *DeviceSet) during(operation, object string, do func() error) error {
	s.mu.Lock()
	err := s.shutError()
	if err == nil {
		s.calls.Add(1)
	}
	s.mu.Unlock()
	if err == nil {
		defer s.calls.Done()
		err = do()
	}
	return failed(operation, object, err)
}

// failed gives an error its operation and object.
func failed(operation, object string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", operation, object, err)
}

// Base devices have names that no caller can give.
const basePrefix = "@base-"

func baseName(fs string) string { return basePrefix + fs }

func isBase(name string) bool { return len(name) > 0 && name[0] == '@' }

// named returns the catalog's name for a caller's: the empty one is that of the
// base device, and what looks like a base device's is nobody's.
func (s *DeviceSet) named(hash string) string {
	switch {
	case hash == "":
		return baseName(s.config.FS)
	case isBase(hash):
		return ""
	}
	return hash
}
