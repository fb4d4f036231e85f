package main

import "fmt"

// findings are told below the tables.
type findings struct {
	lines  []string
	broken []string // limits, and by how much
}

func (f *findings) tell(format string, values ...any) {
	f.lines = append(f.lines, fmt.Sprintf(format, values...))
}

func (f *findings) breaks(format string, values ...any) {
	f.broken = append(f.broken, fmt.Sprintf(format, values...))
}

// print prints them. A limit that is broken is an error.
func (f *findings) print() error {
	fmt.Println()
	for _, line := range f.lines {
		fmt.Println(line)
	}
	for _, line := range f.broken {
		fmt.Println("beyond its limit:", line)
	}
	if n := len(f.broken); n > 0 {
		return fmt.Errorf("%d limits do not hold", n)
	}
	return nil
}
