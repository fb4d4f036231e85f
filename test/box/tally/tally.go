package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// An event is a line of go test -json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// A test is known by its package and its name.
type test struct{ pkg, name string }

// A tally is what became of the tests.
type tally struct {
	ended   map[test]string // pass, fail or skip
	parents map[test]bool   // have subtests
	results []string        // the packages' result lines
}

// read copies the events' output to w, but for the packages' results.
func (t *tally) read(events io.Reader, w io.Writer) error {
	t.ended, t.parents = map[test]string{}, map[test]bool{}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			e = event{Output: string(line)} // a word of go itself
		}
		if err := t.take(e, w); err != nil {
			return err
		}
	}
}

func (t *tally) take(e event, w io.Writer) error {
	if e.Test == "" && isResult(e.Output) {
		t.results = append(t.results, e.Output)
		return nil
	}
	if e.Test != "" {
		t.note(test{e.Package, e.Test}, e.Action)
	}
	_, err := io.WriteString(w, e.Output)
	return err
}

func (t *tally) note(name test, action string) {
	switch action {
	case "run":
		if i := strings.LastIndexByte(name.name, '/'); i >= 0 {
			t.parents[test{name.pkg, name.name[:i]}] = true
		}
	case "pass", "fail", "skip":
		t.ended[name] = action
	}
}

// counts tells whether a test is counted. One with subtests is not, for they are
// counted in its place, unless it failed by itself.
func (t *tally) counts(name test) bool {
	if !t.parents[name] {
		return true
	}
	for other, action := range t.ended {
		if action == "fail" && other.pkg == name.pkg && strings.HasPrefix(other.name, name.name+"/") {
			return false
		}
	}
	return t.ended[name] == "fail"
}

// isResult tells whether line is go test's last word on a package.
func isResult(line string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "---\t"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// names returns the counted tests that ended so, sorted.
func (t *tally) names(how string) (names []string) {
	for test, action := range t.ended {
		if action == how && t.counts(test) {
			names = append(names, test.pkg+"."+test.name)
		}
	}
	slices.Sort(names)
	return names
}

// report names what did not pass, and prints the count and the results that were
// held back.
func (t *tally) report(name string, w io.Writer) {
	for _, how := range []string{"skip", "fail"} {
		for _, test := range t.names(how) {
			fmt.Fprintf(w, "%s: %s\n", how, test)
		}
	}
	fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped\n",
		name, len(t.names("pass")), len(t.names("fail")), len(t.names("skip")))
	for _, result := range t.results {
		fmt.Fprint(w, result)
	}
}
