package csi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// parameters are what a StorageClass may say, beside its file system.
type parameters struct {
	pool    string // "" is the default pool, or the source's
	mkfs    string // words for mkfs, as they were given
	fs      string // for capabilities that name none
	discard bool   // mounted so that deleted files give their blocks back at once
}

// A parameter is a row of the table from which parameters are parsed and
// docs/parameters.md is made.
type parameter struct {
	key, value, does string
	parse            func(*parameters, string) error
}

var parameterTable = []parameter{
	{
		"pool", "a pool's name", "The pool that the volume lies in. None given is `default`, or that of the source.",
		func(p *parameters, value string) error { p.pool = value; return nil },
	},
	{
		"mkfs-options", "words, quoted where needed", "Arguments of mkfs, behind ours and before the device.",
		func(p *parameters, value string) error { p.mkfs = value; _, err := mkfsWords(value); return err },
	},
	{
		"discard", "true or false", "Mounts the file system so that blocks of deleted files go back to the pool at once. Else `fstrim` does that, when it is run.",
		func(p *parameters, value string) (err error) { p.discard, err = strconv.ParseBool(value); return err },
	},
}

// foreignPrefix begins keys that the sidecars add for their own use.
const foreignPrefix = "csi.storage.k8s.io/"

func parseParameters(given map[string]string) (p parameters, err error) {
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == foreignPrefix+"fstype" {
			if _, err := filesystem.ParseType(given[key]); err != nil {
				return p, fmt.Errorf("%w: parameter %s: %w", errInvalid, key, err)
			}
			p.fs = given[key]
		}
		if strings.HasPrefix(key, foreignPrefix) {
			continue
		}
		row := slices.IndexFunc(parameterTable, func(row parameter) bool { return plugin.ParameterPrefix+row.key == key })
		if row < 0 {
			return p, fmt.Errorf("%w: parameter %q is not known: docs/parameters.md lists them", errInvalid, key)
		}
		if err := parameterTable[row].parse(&p, given[key]); err != nil {
			return p, fmt.Errorf("%w: parameter %s: want %s", errInvalid, key, parameterTable[row].value)
		}
	}
	return p, nil
}

// mkfsWords splits arguments of mkfs.
func mkfsWords(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	words, err := deviceset.SplitWords(text)
	if err != nil {
		return nil, fmt.Errorf("mkfs-options %q: %w", text, err)
	}
	return words, nil
}

// checkText refuses a name that CSI does not allow, or that is too long.
func checkText(field, text string) error {
	switch {
	case text == "":
		return fmt.Errorf("%w: %s is missing", errInvalid, field)
	case len(text) > 128:
		return fmt.Errorf("%w: %s has %d bytes: want 128 at most", errInvalid, field, len(text))
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\n\r", r) }):
		return fmt.Errorf("%w: %s has control characters", errInvalid, field)
	}
	return nil
}
