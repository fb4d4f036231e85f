package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// stockModules is where Debian's kernels have their modules.
const stockModules = "/lib/modules"

// newestThinKernel returns the newest installed kernel that has thin pools, and
// its modules, or nil if there is none.
func newestThinKernel() (release string, modules *moduleTree) {
	images, _ := filepath.Glob("/boot/vmlinuz-*")
	slices.SortFunc(images, func(a, b string) int { return slices.Compare(numbers(b), numbers(a)) })
	for _, image := range images {
		release := strings.TrimPrefix(image, "/boot/vmlinuz-")
		tree, err := readModuleTree(filepath.Join(stockModules, release))
		if err != nil {
			continue
		}
		if _, err := tree.resolve(thinModules...); err == nil {
			return release, tree
		}
	}
	return "", nil
}

var digits = regexp.MustCompile("[0-9]+")

// numbers returns the numbers in a release: 6, 1, 0 and 56 of 6.1.0-56-amd64.
func numbers(release string) (ns []int) {
	for _, s := range digits.FindAllString(release, -1) {
		n, _ := strconv.Atoi(s)
		ns = append(ns, n)
	}
	return ns
}
