package deviceset

import (
	"errors"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// lockRoot takes the root for this process. One that was killed while it grew the pool
// may be unable to die: its other threads wait for the pool that it has suspended, and
// it keeps the root as long. So the pool is resumed, which does no harm to a process
// that lives and is just growing it, since its own resume follows.
func (s *DeviceSet) lockRoot() (err error) {
	s.rootLock, err = s.machine.Lock(s.root)
	if !errors.Is(err, ErrInUse) || !s.resumePool() {
		return err
	}
	for end := time.Now().Add(timeToDie); errors.Is(err, ErrInUse) && time.Now().Before(end); {
		time.Sleep(timeToDie / 100)
		s.rootLock, err = s.machine.Lock(s.root)
	}
	return err
}

// timeToDie is how long a killed process may take once its I/O goes on.
const timeToDie = 5 * time.Second

// resumePool resumes the pool of a root that somebody else has, and reports whether it
// was suspended. Its thin devices are left alone: whoever lives may be just making a
// snapshot.
func (s *DeviceSet) resumePool() (some bool) {
	uuid, ok := s.poolOf(s.root)
	if !ok {
		return false
	}
	for _, what := range []string{metaSuffix, poolSuffix} {
		d := dm.ByUUID(s.machine, UUIDPrefix+uuid+"-"+what)
		if info, err := d.Info(); err == nil && info.Suspended() && d.Resume() == nil {
			s.decided(RuleSuspended)
			some = true
		}
	}
	return some
}

// poolOf returns the UUID of the pool that a journal is about.
func (s *DeviceSet) poolOf(root string) (uuid string, ok bool) {
	slots, err := s.machine.OpenSlots(root)
	if err != nil {
		return "", false
	}
	if size, err := slots[0].Size(); err == nil {
		content, _ := journal.New([2]journal.File{slots[0], slots[1]}, size).Read() // damage leaves the header
		if content != nil {
			uuid, ok = content.Header.Pool, true
		}
	}
	for _, slot := range slots {
		_ = slot.Close() // it was only read
	}
	return uuid, ok
}
