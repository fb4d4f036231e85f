package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestStoriesHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range stories {
		if s.name == "" || s.tell == nil || seen[s.name] {
			t.Errorf("story %q", s.name)
		}
		seen[s.name] = true
	}
}

func TestConsecutive(t *testing.T) {
	for text, want := range map[string]int{"": 0, "1": 1, "1\n2\n3\n": 3, "1\n2\n3": 3} {
		if n, err := consecutive(text); n != want || err != nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"2\n", "1\n3\n", "1\n\x00\x00", "1\n1\n"} {
		if n, err := consecutive(text); err == nil {
			t.Errorf("%q has %d good lines", text, n)
		}
	}
}

func TestDifference(t *testing.T) {
	known := map[string]string{"a": "n1", "b": "n2"}
	for _, c := range []struct {
		kept map[string]string
		want string
	}{
		{map[string]string{"a": "n1", "b": "n2"}, ""},
		{map[string]string{"a": "n1"}, "lost: b"},
		{map[string]string{"a": "n1", "b": "n1"}, "on n1, not on n2: b"},
		{map[string]string{"a": "n1", "b": "n2", "c": "n1"}, "unknown: c"},
	} {
		if have := difference(known, c.kept); have != c.want {
			t.Errorf("%v: %q, want %q", c.kept, have, c.want)
		}
	}
}

// What an affinity asked for before is still asked for, and it is left as it was.
func TestNotOn(t *testing.T) {
	if terms := notOn(nil, "n1").NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms; len(terms) != 1 || terms[0].MatchFields[0].Values[0] != "n1" {
		t.Errorf("%v", terms)
	}
	disk := corev1.NodeSelectorRequirement{Key: "disk", Operator: corev1.NodeSelectorOpExists}
	before := &corev1.Affinity{
		PodAntiAffinity: &corev1.PodAntiAffinity{},
		NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{disk}}, {}},
		}},
	}
	after := notOn(before, "n1")
	terms := after.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if after.PodAntiAffinity == nil || len(terms) != 2 || len(terms[0].MatchExpressions) != 1 {
		t.Errorf("%v", after)
	}
	for _, term := range terms {
		if len(term.MatchFields) != 1 || term.MatchFields[0].Operator != corev1.NodeSelectorOpNotIn {
			t.Errorf("%v", term)
		}
	}
	if len(before.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[1].MatchFields) > 0 {
		t.Error("the one before was changed")
	}
}
