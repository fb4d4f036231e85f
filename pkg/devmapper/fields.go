package devmapper

import (
	"fmt"
	"strconv"
	"strings"
)

// A fields takes words off a line. The first word that is not what was asked
// for sets err, and all reads after that answer zero.
type fields struct {
	rest []string
	err  error
}

func words(s string) *fields { return &fields{rest: strings.Fields(s)} }

func (f *fields) word() string {
	if f.err == nil && len(f.rest) == 0 {
		f.err = fmt.Errorf("ends too early")
	}
	if f.err != nil {
		return ""
	}
	word := f.rest[0]
	f.rest = f.rest[1:]
	return word
}

func (f *fields) number() uint64 { return f.numberBefore("") }

// numberBefore reads a number that a separator ends, as in 12/34.
func (f *fields) numberBefore(sep string) uint64 {
	word := f.word()
	digits, tail, found := word, "", true
	if sep != "" {
		digits, tail, found = strings.Cut(word, sep)
		f.rest = append([]string{tail}, f.rest...)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if f.err == nil && (err != nil || !found) {
		f.err = fmt.Errorf("%q is not a number", word)
	}
	return n
}

func (f *fields) devNo() DevNo {
	dev, err := ParseDevNo(f.word())
	if f.err == nil {
		f.err = err
	}
	return dev
}

// oneOf reads a word that must be one of those given.
func (f *fields) oneOf(choices ...string) string {
	word := f.word()
	for _, c := range choices {
		if word == c {
			return word
		}
	}
	if f.err == nil {
		f.err = fmt.Errorf("%q is none of %s", word, strings.Join(choices, ", "))
	}
	return ""
}

// index reads one of the words given and returns which.
func (f *fields) index(choices []string) int {
	word := f.oneOf(choices...)
	for i, c := range choices {
		if word == c {
			return i
		}
	}
	return 0
}

func (f *fields) numberOrDash() uint64 {
	if f.more() && f.rest[0] == "-" {
		f.word()
		return 0
	}
	return f.number()
}

func (f *fields) deviceID() DeviceID {
	n := f.number()
	if f.err == nil && n > uint64(MaxDeviceID) {
		f.err = fmt.Errorf("thin id %d exceeds %d", n, MaxDeviceID)
	}
	return DeviceID(n)
}

// more reports whether a word is left.
func (f *fields) more() bool { return f.err == nil && len(f.rest) > 0 }

// end returns what went wrong, a word too many included.
func (f *fields) end(what string) error {
	if f.more() {
		f.err = fmt.Errorf("unexpected %q", f.rest[0])
	}
	if f.err != nil {
		return fmt.Errorf("%s: %w", what, f.err)
	}
	return nil
}
