package filesystem

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A flagWord is a mount option that is a flag of mount(2): it clears some and
// then sets some. The words are those of mount(8).
type flagWord struct{ clear, set uintptr }

const atimes = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

var flagWords = map[string]flagWord{
	"defaults":      {},
	"ro":            {set: unix.MS_RDONLY},
	"rw":            {clear: unix.MS_RDONLY},
	"nosuid":        {set: unix.MS_NOSUID},
	"suid":          {clear: unix.MS_NOSUID},
	"nodev":         {set: unix.MS_NODEV},
	"dev":           {clear: unix.MS_NODEV},
	"noexec":        {set: unix.MS_NOEXEC},
	"exec":          {clear: unix.MS_NOEXEC},
	"nosymfollow":   {set: unix.MS_NOSYMFOLLOW},
	"symfollow":     {clear: unix.MS_NOSYMFOLLOW},
	"sync":          {set: unix.MS_SYNCHRONOUS},
	"async":         {clear: unix.MS_SYNCHRONOUS},
	"dirsync":       {set: unix.MS_DIRSYNC},
	"mand":          {set: unix.MS_MANDLOCK},
	"nomand":        {clear: unix.MS_MANDLOCK},
	"iversion":      {set: unix.MS_I_VERSION},
	"noiversion":    {clear: unix.MS_I_VERSION},
	"lazytime":      {set: unix.MS_LAZYTIME},
	"nolazytime":    {clear: unix.MS_LAZYTIME},
	"silent":        {set: unix.MS_SILENT},
	"loud":          {clear: unix.MS_SILENT},
	"nodiratime":    {set: unix.MS_NODIRATIME},
	"diratime":      {clear: unix.MS_NODIRATIME},
	"noatime":       {clear: atimes, set: unix.MS_NOATIME},
	"atime":         {clear: unix.MS_NOATIME},
	"relatime":      {clear: atimes, set: unix.MS_RELATIME},
	"norelatime":    {clear: unix.MS_RELATIME},
	"strictatime":   {clear: atimes, set: unix.MS_STRICTATIME},
	"nostrictatime": {clear: unix.MS_STRICTATIME},
}

// Words that ask mount(2) for something else than to mount a device, and words
// that are for mount(8) and systemd alone.
var (
	otherVerbs = []string{"remount", "bind", "rbind", "move", "shared", "rshared", "slave", "rslave",
		"private", "rprivate", "unbindable", "runbindable"}
	notForKernel = []string{"auto", "noauto", "nofail", "_netdev", "nouser"}
)

// A mountCall has those arguments of mount(2) that come from options.
type mountCall struct {
	flags uintptr
	data  []string
}

// compile makes o an argument list for mounting a file system of type t.
func (o MountOptions) compile(t Type) (mountCall, error) {
	var c mountCall
	for _, words := range o.Options {
		for _, word := range splitOptions(words) {
			if err := c.add(word); err != nil {
				return mountCall{}, err
			}
		}
	}
	if o.ReadOnly {
		c.flags |= unix.MS_RDONLY
	}
	if o.Label != "" {
		c.data = append(c.data, `context="`+o.Label+`"`) // it may have commas
	}
	c.addDefaults(t)
	return c, c.check(o.Label)
}

// add takes in one word. Of words that contradict each other, the last one wins.
func (c *mountCall) add(word string) error {
	switch flag, known := flagWords[word]; {
	case known:
		c.flags = c.flags&^flag.clear | flag.set
	case slices.Contains(otherVerbs, word):
		return fmt.Errorf("option %s is not for mounting a device", word)
	case ignored(word):
	default:
		c.data = append(c.data, word)
	}
	return nil
}

func ignored(word string) bool {
	return slices.Contains(notForKernel, word) || strings.HasPrefix(word, "x-") ||
		strings.HasPrefix(word, "X-") || strings.HasPrefix(word, "comment=")
}

// addDefaults adds what a type is mounted with unless told otherwise. The clones
// of a volume have its UUID, of which xfs mounts only one without nouuid. ext4
// with errors=continue would write on into what it knows to be damaged.
func (c *mountCall) addDefaults(t Type) {
	switch {
	case t == XFS && !slices.Contains(c.data, "nouuid"):
		c.data = append(c.data, "nouuid")
	case t == Ext4 && !slices.ContainsFunc(c.data, isErrors):
		c.data = append(c.data, "errors=remount-ro")
	}
}

func isErrors(word string) bool { return strings.HasPrefix(word, "errors=") }

// maxData is how much mount(2) reads. It drops the rest without a word
// (fs/namespace.c, copy_mount_options), or half a word.
const maxData = 4095

func (c mountCall) check(label string) error {
	if strings.Contains(label, `"`) {
		return fmt.Errorf("label %q has a quote", label)
	}
	if n := len(c.String()); n > maxData {
		return fmt.Errorf("options of %d bytes; mount takes %d", n, maxData)
	}
	return nil
}

// String returns the data as mount(2) takes it.
func (c mountCall) String() string { return strings.Join(c.data, ",") }

// splitOptions splits at the commas that are not within quotes, and drops empty
// words.
func splitOptions(s string) (words []string) {
	start, quoted := 0, false
	for i := 0; i <= len(s); i++ {
		if i < len(s) && (quoted || s[i] != ',') {
			quoted = quoted != (s[i] == '"')
			continue
		}
		if i > start {
			words = append(words, s[start:i])
		}
		start = i + 1
	}
	return words
}
