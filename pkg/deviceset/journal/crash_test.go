package journal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A story is what a process does with a journal: begin and then the bodies, each
// synced or, as on a label, none.
type story struct {
	disk   *disk
	synced bool // each frame is
	bodies []string

	found history // by the process
	put   history // found, and what was put behind it, durable or not
	safe  int     // how many of put are durable
}

func (s *story) tell() {
	slots := s.disk.slots()
	if _, err := slots.Read(); err != nil && !errors.Is(err, ErrEmpty) {
		panic(err)
	}
	s.found, _, _ = read(s.disk)
	s.put = slices.Clone(s.found)
	s.begin(slots)
	for _, body := range s.bodies {
		if err := slots.Append([]byte(body)); errors.Is(err, ErrFull) {
			s.begin(slots)
			if err := slots.Append([]byte(body)); err != nil {
				panic(err)
			}
		} else if err != nil {
			panic(err)
		}
		s.put = append(s.put, body)
		if s.synced {
			_ = slots.Sync()
			s.safe = len(s.put)
		}
	}
}

// begin switches, as every process does before anything else and when a slot is
// full.
func (s *story) begin(slots *Slots) {
	first := uint64(len(s.put) + 1)
	if err := slots.Switch(header, s.put.checkpoint(first), first); err != nil {
		panic(err)
	}
	s.safe = len(s.put)
}

// bodies returns bodies of one block and, now and then, of three.
func bodies(who string, n int) (all []string) {
	for i := range n {
		body := fmt.Sprintf("%s %d", who, i)
		if i%4 == 3 {
			body += strings.Repeat(".", 2*BlockSize)
		}
		all = append(all, body)
	}
	return all
}

// isCut reports whether h is what may be left of put: no less than what is safe.
func isCut(h, put history, safe int) bool {
	return len(h) >= safe && len(h) <= len(put) && slices.Equal(h, put[:len(h)])
}

// The power may fail at every I/O, and any of what was not synced be lost: what was
// synced is read back, and nothing is that was not written.
func TestPowerCut(t *testing.T) {
	for _, synced := range []bool{true, false} {
		cuts := 0
		for at := 0; ; at++ {
			s := &story{disk: newDisk(9), synced: synced, bodies: bodies("a", 12)}
			crashed := s.disk.crashes(at, s.tell)
			s.disk.powerCuts(func(d *disk) {
				cuts++
				h, content, err := read(d)
				if errors.Is(err, ErrEmpty) && s.safe == 0 && len(s.put) == 0 {
					return
				}
				put := s.put
				if crashed && len(put) < len(s.bodies) {
					put = append(slices.Clone(put), s.bodies[len(put)]) // it may have been under way
				}
				if err != nil || !isCut(h, put, s.safe) || content.Gap && synced {
					t.Fatalf("at I/O %d: %.10q, %v; %d of %.10q are safe", at, h, err, s.safe, put)
				}
			})
			if !crashed {
				break
			}
		}
		t.Logf("frames synced %t: %d power cuts", synced, cuts)
	}
}

// A process is killed at every I/O, and the power fails at every I/O of the next
// one, which has found what no sync has made durable.
func TestKillAndPowerCut(t *testing.T) {
	for _, synced := range []bool{true, false} {
		cuts := 0
		for at := 0; ; at++ {
			first := &story{disk: newDisk(9), synced: synced, bodies: bodies("a", 7)}
			killed := first.disk.crashes(at, first.tell)
			for then := 0; ; then++ {
				second := &story{disk: first.disk.clone(), synced: synced, bodies: bodies("b", 4), safe: first.safe}
				crashed := second.disk.crashes(then, second.tell)
				second.disk.powerCuts(func(d *disk) {
					cuts++
					h, content, err := read(d)
					if errors.Is(err, ErrEmpty) && second.safe == 0 {
						return
					}
					ofFirst, ofSecond := first.put, second.put
					if n := len(ofFirst); n < len(first.bodies) {
						ofFirst = append(slices.Clone(ofFirst), first.bodies[n])
					}
					if n := len(ofSecond) - len(second.found); n < len(second.bodies) {
						ofSecond = append(slices.Clone(ofSecond), second.bodies[n])
					}
					safe := second.safe
					good := isCut(h, ofSecond, safe) || isCut(h, ofFirst, max(safe, first.safe)) && safe <= first.safe
					if err != nil || !good || content.Gap && synced {
						t.Fatalf("killed at %d, power cut at %d: %.10q, %v; safe are %d of %.10q, before that %d of %.10q",
							at, then, h, err, second.safe, second.put, first.safe, first.put)
					}
				})
				if !crashed {
					break
				}
			}
			if !killed {
				break
			}
		}
		t.Logf("frames synced %t: %d power cuts", synced, cuts)
	}
}
