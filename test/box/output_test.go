package main

import (
	"bytes"
	"testing"
	"time"
)

func FuzzLastLine(f *testing.F) {
	f.Add("3 10 0\n")
	f.Add("3 10 1")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseLastLine(s)
		if err != nil {
			return
		}
		if again, err := parseLastLine(l.String()); err != nil || again != l {
			t.Errorf("%q is read as %v, which is read as %v, %v", s, l, again, err)
		}
	})
}

// The last line may overtake what it counts.
func TestOutputWaitsForWhatIsAnnounced(t *testing.T) {
	o, err := newOutput()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	go func() {
		_, _ = o.inlets[2].WriteString("7 5 0\n")
		time.Sleep(10 * time.Millisecond)
		_, _ = o.inlets[0].WriteString("12345")
	}()
	var stdout, stderr bytes.Buffer
	o.copy(&stdout, &stderr, o.closeInlets)
	if status, ok := o.status(); !ok || status != 7 || stdout.String() != "12345" {
		t.Errorf("status %d, %v, %q", status, ok, stdout.String())
	}
}
