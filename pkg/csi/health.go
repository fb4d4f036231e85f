package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A condition is something that is wrong with a pool or a volume.
type condition struct {
	how     severity
	reason  string // for machines
	message string // for people
}

// A severity is how much of a volume is still there.
type severity int

const (
	degraded     severity = iota // it works, or does until something runs out
	inaccessible                 // it does not, or not for writing
	lost                         // and what was on it is gone
)

// conditions tells what is wrong with a pool.
func (p *Pool) conditions() []condition {
	if p.isEmpty() {
		return nil
	}
	if _, err := p.Layers(); err != nil {
		return []condition{{inaccessible, "PoolNotOpen", err.Error()}}
	}
	st, err := ask(p, func(layers *graphdriver.Driver) *deviceset.Status { return layers.DeviceSet.Status() })
	if err != nil {
		return []condition{{inaccessible, "PoolDoesNotAnswer", err.Error()}}
	}
	return conditionsOf(p.Name, st)
}

// Ready reports whether each pool is open, or known not to open; and it tells, a line for
// each, why a pool is not open. Starting the driver anew would mend none.
func (d *Driver) Ready() (ready bool, notOpen []string) {
	ready = true
	for _, p := range d.pools {
		_, err := p.Now()
		if err == nil {
			continue
		}
		ready = ready && !errors.Is(err, errNotYetOpen)
		notOpen = append(notOpen, "pool "+p.Name+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return ready, notOpen
}

// nearlyFull is the part of a pool's data, in percent, from which on it is.
const nearlyFull = 90

func conditionsOf(pool string, st *deviceset.Status) (all []condition) {
	add := func(how severity, reason, format string, args ...any) {
		all = append(all, condition{how, reason, fmt.Sprintf("pool %s: ", pool) + fmt.Sprintf(format, args...)})
	}
	switch st.Mode {
	case "rw":
	case "out_of_data_space":
		add(inaccessible, "PoolFull", "its data device is full: delete, discard or grow it")
	case "ro":
		add(inaccessible, "PoolReadOnly", "it takes no changes")
	default:
		add(inaccessible, "PoolFailed", "it is in mode %s", st.Mode)
	}
	if st.NeedsCheck {
		add(degraded, "PoolNeedsCheck", "a metadata operation failed and it needs a check")
	}
	if st.ReadOnly != "" {
		add(degraded, "PoolNotTrusted", "%s", st.ReadOnly)
	}
	if st.Mode == "rw" && st.Data.Total > 0 && st.Data.Used*100 >= st.Data.Total*nearlyFull {
		add(degraded, "PoolNearlyFull", "%d of %d bytes of data are used", st.Data.Used, st.Data.Total)
	}
	if st.Metadata.Total > 0 && st.Metadata.Used*100 >= st.Metadata.Total*nearlyFull {
		add(degraded, "MetadataNearlyFull", "%d of %d bytes of metadata are used", st.Metadata.Used, st.Metadata.Total)
	}
	return all
}

// conditions tells what is wrong with a volume, its pool included.
func (v volume) conditions() []condition {
	all := v.pool.conditions()
	switch {
	case errors.Is(v.Err, deviceset.ErrLost):
		all = append(all, condition{lost, "VolumeLost", v.Err.Error()})
	case v.Err != nil:
		all = append(all, condition{inaccessible, "VolumeQuarantined", v.Err.Error()})
	}
	return all
}

// NodeGetVolumeHealth tells what is wrong with a volume; nothing, if it is well.
func (d *Driver) NodeGetVolumeHealth(_ context.Context, r *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	health := &csi.VolumeHealth{VolumeId: r.GetVolumeId()}
	for _, c := range v.conditions() {
		health.HealthStatuses = append(health.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
			Status: [...]csi.VolumeHealthErrorType{
				degraded: csi.VolumeHealthErrorType_DEGRADED, inaccessible: csi.VolumeHealthErrorType_INACCESSIBLE, lost: csi.VolumeHealthErrorType_DATA_LOSS,
			}[c.how],
			Reason: c.reason, Message: c.message,
		})
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// mostConditions is how many the orchestrator takes.
const mostConditions = 16

// NodeGetStorageHealth tells what is wrong with the pools. Of several with the same
// reason there is one entry.
func (d *Driver) NodeGetStorageHealth(context.Context, *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	type backend = csi.NodeGetStorageHealthResponse_StorageBackendHealth
	answer, known := &csi.NodeGetStorageHealthResponse{}, map[string]*backend{}
	for _, p := range d.pools {
		for _, c := range p.conditions() {
			status := csi.StorageHealthErrorType_STORAGE_DEGRADED
			if c.how > degraded {
				status = csi.StorageHealthErrorType_STORAGE_UNREACHABLE
			}
			if same := known[c.reason]; same != nil {
				same.Message += "; " + c.message
			} else if len(known) < mostConditions {
				known[c.reason] = &backend{Status: status, Reason: c.reason, Message: c.message}
				answer.BackendHealth = append(answer.BackendHealth, known[c.reason])
			}
		}
	}
	return answer, nil
}
