package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// An output is how a command prints what it has: as text for people, or as JSON, where
// sizes are bytes and times RFC 3339.
type output string

const (
	outputText output = "text"
	outputWide output = "wide" // text with more columns
	outputJSON output = "json"
)

// outputFlag lets a command be told how to print: as text or JSON, and what else it has.
func outputFlag(command *cobra.Command, also ...output) *output {
	o := outputText
	value := &outputValue{&o, slices.Concat([]output{outputText}, also, []output{outputJSON})}
	command.Flags().VarP(value, "output", "o", "`form` of the answer: "+value.forms())
	return &o
}

// outputValue is an output as a flag.
type outputValue struct {
	*output
	known []output
}

func (v *outputValue) forms() string {
	words := make([]string, len(v.known))
	for i, o := range v.known {
		words[i] = string(o)
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func (v *outputValue) String() string { return string(*v.output) }

func (v *outputValue) Type() string { return "form" }

func (v *outputValue) Set(text string) error {
	if !slices.Contains(v.known, output(text)) {
		return fmt.Errorf("want %s", v.forms())
	}
	*v.output = output(text)
	return nil
}

// print prints a value as JSON, or has text do it.
func (o output) print(w io.Writer, value any, text func(io.Writer) error) error {
	if o != outputJSON {
		return text(w)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// printTable prints rows with their columns below each other. What has nothing to say is
// a dash, so that a column is found by its number; behind the end of a row there is
// nothing.
func printTable(w io.Writer, rows ...[]string) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(rows[0]))
		for i, cell := range row {
			cells[i] = cmp.Or(cell, "-")
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}
