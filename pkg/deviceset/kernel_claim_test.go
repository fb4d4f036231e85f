package deviceset_test

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// Of two that make a pool of the same disks at once, one does.
func TestKernelOneMaker(t *testing.T) {
	for range 5 {
		l := newKernelLab(t)
		_, _, options := l.onDisks(256*mib, 16*mib)
		var sets [2]*deviceset.DeviceSet
		var errs [2]error
		var both sync.WaitGroup
		for i := range sets {
			both.Go(func() {
				sets[i], errs[i] = deviceset.NewDeviceSet(filepath.Join(l.dir, []string{"one", "two"}[i]), true, options, nil, nil)
			})
		}
		both.Wait()
		made := 0
		for i, s := range sets {
			switch {
			case errs[i] == nil:
				made++
				l.must(s.Shutdown(""))
			case !errors.Is(errs[i], deviceset.ErrInUse) && !errors.Is(errs[i], deviceset.ErrForeign):
				t.Errorf("error is %v", errs[i])
			}
		}
		if made != 1 {
			t.Fatalf("%d pools were made: %v", made, errs)
		}
	}
}
