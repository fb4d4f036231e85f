package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// humanSize prints bytes with a binary unit and at most one digit behind the point, so
// that deviceset.ParseSize reads what it prints.
func humanSize[N int64 | uint64](bytes N) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	size := float64(bytes)
	rounded := func() float64 { return math.Round(size*10) / 10 }
	for len(units) > 1 && rounded() >= 1024 {
		size, units = size/1024, units[1:]
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", rounded()), ".0") + " " + units[0]
}

// parseSize reads a size as people write it.
func parseSize(what, text string) (int64, error) {
	size, err := deviceset.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("%s %q: want a size such as 20G or 1.5TiB: %w", what, text, err)
	}
	if size == 0 {
		return 0, fmt.Errorf("%s %q: want more than nothing", what, text)
	}
	return size, nil
}

// barWidth is how many signs a bar has between its ends.
const barWidth = 24

// bar draws how much of something is used: # for what is, and | where what is kept free
// begins, if anything is.
func bar(used, total, keptFree uint64) string {
	if total == 0 {
		return "[" + strings.Repeat("?", barWidth) + "]"
	}
	signs := []rune(strings.Repeat(".", barWidth))
	for i := range int(math.Ceil(share(used, total) * barWidth)) {
		signs[i] = '#'
	}
	if keptFree > 0 && keptFree <= total {
		signs[min(int(share(total-keptFree, total)*barWidth), barWidth-1)] = '|'
	}
	return "[" + string(signs) + "]"
}

// share returns the part of total that used is, and never more than all of it.
func share(used, total uint64) float64 {
	if total == 0 {
		return 0
	}
	return min(float64(used)/float64(total), 1)
}

// percent prints a share. Only nothing is 0 % and only all of it 100 %.
func percent(used, total uint64) string {
	exact := share(used, total) * 100
	rounded := math.Round(exact)
	switch {
	case rounded == 0 && exact > 0:
		return "<1%"
	case rounded == 100 && exact < 100:
		return ">99%"
	}
	return fmt.Sprintf("%.0f%%", rounded)
}
