package csi

import (
	"errors"
	"strings"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Now returns the pool's layers, or the bare reason why there are none: it is for whoever
// names the pool himself.
func (p *Pool) Now() (*graphdriver.Driver, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	switch {
	case p.layers != nil && !p.ending:
		return p.layers, nil
	case p.err != nil:
		return nil, p.err
	}
	return nil, errNotYetOpen
}

var errNotYetOpen = errors.New("it was not opened yet")

// Kinds of a Presented device.
const (
	KindVolume   = "volume"
	KindSnapshot = "snapshot"
	KindOther    = "other" // it was made for somebody else, or adopted under a name of its own
)

// A Presented device is described in the orchestrator's words.
type Presented struct {
	Kind      string
	ID        string // empty for KindOther
	Name      string // that the orchestrator gave it, or the device's
	Source    string // the device that it was made from, which need not be there any more
	Block     bool   // it is used without a file system
	FS        string // that it has, or is to have; empty if nobody said
	Formatted bool   // it has it
}

// Present describes a device of the pool, which must be open.
func (p *Pool) Present(d deviceset.Device) Presented {
	v, k := volume{Device: d, pool: p}, plugin.KindOf(d.Name)
	present := Presented{
		Kind: KindOther, Name: d.Labels[labelName], Source: d.Labels[labelSource],
		Block: v.isBlock(), Formatted: d.FS != "none" && !d.Formatting,
	}
	switch k {
	case plugin.Volume:
		present.Kind, present.ID = KindVolume, v.id()
	case plugin.Snapshot:
		present.Kind, present.ID = KindSnapshot, v.id()
	}
	if fs := v.fileSystem(); !present.Block && fs != "none" {
		present.FS = fs
	}
	if present.Name == "" {
		present.Name = strings.TrimPrefix(d.Name, string(k)+"-")
	}
	if present.Source == "" {
		present.Source = d.Parent
	}
	return present
}
