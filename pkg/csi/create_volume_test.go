package csi_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

func TestCreateVolume(t *testing.T) {
	l := run(t)
	blockSize := l.set(t, 0).BlockSize()

	t.Run("a blank one is as large as it was asked for, and here", func(t *testing.T) {
		v := l.volume(t, "pvc-1")
		equals(t, "size", v.GetCapacityBytes(), gib)
		equals(t, "id", strings.HasSuffix(v.GetVolumeId(), ".v-pvc-1"), true)
		equals(t, "context and source", []any{len(v.GetVolumeContext()), v.GetContentSource() == nil}, []any{0, true})
		equals(t, "topologies", len(v.GetAccessibleTopology()), 1)
		equals(t, "topology", v.GetAccessibleTopology()[0].GetSegments(), map[string]string{"csi-dmthin.dev/node": "node"})
		info := got[*spec.NodeGetInfoResponse](t)(l.NodeGetInfo(t.Context(), &spec.NodeGetInfoRequest{}))
		equals(t, "the node's topology", v.GetAccessibleTopology()[0], info.GetAccessibleTopology())
	})
	t.Run("sizes", func(t *testing.T) {
		for i, test := range []struct {
			least, most, size int64
			fs                string
			code              codes.Code
		}{
			{0, 0, gib, "", codes.OK},
			{1, 0, blockSize, "", codes.OK},
			{blockSize + 1, 0, 2 * blockSize, "", codes.OK},
			{blockSize + 1, 2 * blockSize, 2 * blockSize, "", codes.OK},
			{blockSize + 1, 2*blockSize - 1, 0, "", codes.OutOfRange},
			{0, 10*blockSize + 5, 10 * blockSize, "", codes.OK},
			{0, blockSize - 1, 0, "", codes.OutOfRange},
			{0, 2 * gib, gib, "", codes.OK},
			{1, 0, 300 * mib, "xfs", codes.OK},
			{0, 0, gib, "xfs", codes.OK},
			{1, 300*mib - 1, 0, "xfs", codes.OutOfRange},
			{0, 299 * mib, 0, "xfs", codes.OutOfRange},
			{-1, 0, 0, "", codes.InvalidArgument},
			{0, -1, 0, "", codes.InvalidArgument},
			{2 * gib, gib, 0, "", codes.InvalidArgument},
			{1 << 60, 0, 0, "", codes.ResourceExhausted},
			{1<<60 + 1, 0, 0, "", codes.OutOfRange},
			{math.MaxInt64, 0, 0, "", codes.OutOfRange},
		} {
			name := fmt.Sprintf("size-%d", i)
			v, err := l.tryVolume(t, name, size(test.least, test.most), access(mount(test.fs)))
			if refuses(t, err, test.code); err == nil {
				equals(t, name, v.GetCapacityBytes(), test.size)
				must(t, l.deleteVolume(t, v))
			}
		}
	})
	t.Run("no capacity range is 1 GiB", func(t *testing.T) {
		v := l.volume(t, "without", func(r *spec.CreateVolumeRequest) { r.CapacityRange = nil })
		equals(t, "size", v.GetCapacityBytes(), gib)
	})
	t.Run("names", func(t *testing.T) {
		seen := map[string]string{}
		for _, name := range []string{
			"a", "A", "a b", "a.b", "../../etc/passwd", "/", "..", "-a", "%s%n", "a\u00a0b", "a\tb\r\n", "名前", "\u202egnp.exe", "\ufeff", "a\u200d",
			strings.Repeat("n", 63), strings.Repeat("n", 64), strings.Repeat("n", 128), strings.Repeat("é", 64), "v-a", "x-" + strings.Repeat("0", 32),
		} {
			v := l.volume(t, name, size(mib, 0))
			id := v.GetVolumeId()
			if len(id) > 128 || seen[id] != "" {
				t.Errorf("%q and %q: id %s", name, seen[id], id)
			}
			seen[id] = name
			equals(t, "the same again", l.volume(t, name, size(mib, 0)), v)
			equals(t, "found", got[*spec.ControllerGetVolumeResponse](t)(l.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: id})).GetVolume(), v)
			must(t, l.deleteVolume(t, v))
		}
		for _, name := range []string{"", strings.Repeat("n", 129), strings.Repeat("é", 65), "a\x00b", "a\x0bb", "a\x7fb", "a\u0085b", "\x1f"} {
			_, err := l.tryVolume(t, name)
			refuses(t, err, codes.InvalidArgument, "name")
		}
	})
	t.Run("parameters", func(t *testing.T) {
		for _, test := range []struct {
			key, value string
			says       []string
		}{
			{"csi-dmthin.dev/pol", "default", []string{"csi-dmthin.dev/pol"}},
			{"pool", "default", []string{`"pool"`}},
			{"csi-dmthin.dev/pool", "fast", []string{`"fast"`, "default"}},
			{"csi-dmthin.dev/discard", "perhaps", []string{"csi-dmthin.dev/discard", "true or false"}},
			{"csi-dmthin.dev/mkfs-options", `-L "a`, []string{"csi-dmthin.dev/mkfs-options"}},
			{"csi-dmthin.dev/mkfs-options", strings.Repeat("a", 257), []string{"mkfs"}},
			{"csi.storage.k8s.io/fstype", "btrfs", []string{"btrfs"}},
			{"csi.storage.k8s.io/fstype", "ntfs", []string{"ntfs"}},
			{"", "", []string{`""`}},
		} {
			l.unchanged(t, func() {
				_, err := l.tryVolume(t, "parameters", parameter(test.key, test.value))
				refuses(t, err, codes.InvalidArgument, test.says...)
			})
		}
		v := l.volume(t, "parameters", parameter("csi.storage.k8s.io/pvc/name", "data-0"), parameter("csi.storage.k8s.io/fstype", "xfs"),
			inPool("default"), parameter("csi-dmthin.dev/discard", "true"), parameter("csi-dmthin.dev/mkfs-options", "-m crc=1"))
		must(t, l.stage(t, v, mount("xfs")))
		must(t, l.unstage(t, v))
		_, err := l.tryVolume(t, "mutable", func(r *spec.CreateVolumeRequest) { r.MutableParameters = map[string]string{"iops": "5"} })
		refuses(t, err, codes.InvalidArgument, "iops")
	})
	t.Run("capabilities", func(t *testing.T) {
		noType := &spec.VolumeCapability{AccessMode: mode(nil)}
		noMode := block()
		noMode.AccessMode = nil
		grouped := mount("ext4")
		grouped.GetMount().VolumeMountGroup = "7"
		for what, test := range map[string]struct {
			all  []*spec.VolumeCapability
			code codes.Code
		}{
			"none":                 {nil, codes.InvalidArgument},
			"no access type":       {[]*spec.VolumeCapability{noType}, codes.InvalidArgument},
			"no access mode":       {[]*spec.VolumeCapability{noMode}, codes.InvalidArgument},
			"a group":              {[]*spec.VolumeCapability{grouped}, codes.InvalidArgument},
			"both":                 {[]*spec.VolumeCapability{mount(""), block()}, codes.InvalidArgument},
			"two file systems":     {[]*spec.VolumeCapability{mount("ext4"), mount("xfs")}, codes.InvalidArgument},
			"btrfs":                {[]*spec.VolumeCapability{mount("btrfs")}, codes.InvalidArgument},
			"many nodes write":     {[]*spec.VolumeCapability{mount("", rwx)}, codes.InvalidArgument},
			"one of many writes":   {[]*spec.VolumeCapability{mount("", spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER)}, codes.InvalidArgument},
			"the second is wrong":  {[]*spec.VolumeCapability{mount(""), mount("", rwx)}, codes.InvalidArgument},
			"a mode of the future": {[]*spec.VolumeCapability{mount("", 99)}, codes.InvalidArgument},
			"several modes":        {[]*spec.VolumeCapability{mount("", rwo), mount("ext4", rwop), mount("", rox)}, codes.OK},
			"only to read":         {[]*spec.VolumeCapability{mount("", spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY)}, codes.OK},
			"the old mode":         {[]*spec.VolumeCapability{block(spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)}, codes.OK},
		} {
			v, err := l.tryVolume(t, "capabilities", access(test.all...))
			if refuses(t, err, test.code); err == nil {
				must(t, l.deleteVolume(t, v))
			} else if t.Failed() {
				t.Log(what)
			}
		}
		_, err := l.tryVolume(t, "block", access(block()), parameter("csi-dmthin.dev/discard", "true"))
		refuses(t, err, codes.InvalidArgument, "discard")
	})
	t.Run("topology", func(t *testing.T) {
		on := func(nodes ...string) (all []*spec.Topology) {
			for _, n := range nodes {
				all = append(all, &spec.Topology{Segments: map[string]string{"csi-dmthin.dev/node": n}})
			}
			return all
		}
		for i, test := range []struct {
			requisite, preferred []*spec.Topology
			code                 codes.Code
		}{
			{nil, nil, codes.OK},
			{on("other", "node"), on("other", "node"), codes.OK},
			{on("other"), on("other"), codes.ResourceExhausted},
			{nil, on("node"), codes.OK},
			{nil, on("other"), codes.ResourceExhausted},
			{on("other", "third"), on("node"), codes.ResourceExhausted}, // preferred is a part of requisite
		} {
			v, err := l.tryVolume(t, fmt.Sprintf("topology-%d", i), func(r *spec.CreateVolumeRequest) {
				r.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: test.requisite, Preferred: test.preferred}
			})
			if refuses(t, err, test.code); err == nil {
				must(t, l.deleteVolume(t, v))
			}
		}
	})
}

// What is asked for again is there; what differs is refused, and changes nothing.
func TestCreateVolumeAgain(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	source, other := l.volume(t, "source"), l.volume(t, "other")
	snapshot := l.snapshot(t, "snapshot", source)
	here := func(r *spec.CreateVolumeRequest) {
		r.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: source.GetAccessibleTopology()}
	}
	secret := func(r *spec.CreateVolumeRequest) { r.Secrets = map[string]string{"k": "v"} }
	mkfs, discard := parameter("csi-dmthin.dev/mkfs-options", "-N 5"), parameter("csi-dmthin.dev/discard", "true")
	for _, test := range []struct {
		what        string
		first, then []wish
		code        codes.Code
	}{
		{"the same", nil, nil, codes.OK},
		{"a range around it", nil, []wish{size(gib-5, gib+5)}, codes.OK},
		{"no size", nil, []wish{size(0, 0)}, codes.OK},
		{"a larger one", nil, []wish{size(2*gib, 0)}, codes.AlreadyExists},
		{"a smaller one", nil, []wish{size(1, gib-1)}, codes.AlreadyExists},
		{"the file system that it has", nil, []wish{access(mount("ext4"))}, codes.OK},
		{"that as a parameter", nil, []wish{parameter("csi.storage.k8s.io/fstype", "ext4")}, codes.OK},
		{"another file system", nil, []wish{access(mount("xfs"))}, codes.AlreadyExists},
		{"that as a parameter", nil, []wish{parameter("csi.storage.k8s.io/fstype", "xfs")}, codes.AlreadyExists},
		{"another mode", nil, []wish{access(mount("", rwop))}, codes.OK},
		{"a block device", nil, []wish{access(block())}, codes.AlreadyExists},
		{"block devices", []wish{access(block())}, []wish{access(block(rwop))}, codes.OK},
		{"no block device", []wish{access(block())}, []wish{access(mount("ext4"))}, codes.AlreadyExists},
		{"mkfs options", nil, []wish{mkfs}, codes.AlreadyExists},
		{"none", []wish{mkfs}, nil, codes.AlreadyExists},
		{"discard", nil, []wish{discard}, codes.AlreadyExists},
		{"discards", []wish{discard}, []wish{discard}, codes.OK},
		{"the default pool", nil, []wish{inPool("default")}, codes.OK},
		{"another pool", nil, []wish{inPool("fast")}, codes.AlreadyExists},
		{"from another pool", []wish{inPool("fast")}, nil, codes.AlreadyExists},
		{"a source", nil, []wish{fromVolume(source)}, codes.AlreadyExists},
		{"a snapshot", nil, []wish{fromSnapshot(snapshot)}, codes.AlreadyExists},
		{"clones", []wish{fromVolume(source)}, []wish{fromVolume(source)}, codes.OK},
		{"clones that name the pool", []wish{fromVolume(source)}, []wish{fromVolume(source), inPool("default")}, codes.OK},
		{"clones of any size", []wish{fromVolume(source), size(2*gib, 0)}, []wish{fromVolume(source), size(0, 0)}, codes.OK},
		{"no clone", []wish{fromVolume(source)}, nil, codes.AlreadyExists},
		{"a clone of another", []wish{fromVolume(source)}, []wish{fromVolume(other)}, codes.AlreadyExists},
		{"a clone of its snapshot", []wish{fromVolume(source)}, []wish{fromSnapshot(snapshot)}, codes.AlreadyExists},
		{"a node that is here", nil, []wish{here}, codes.OK},
		{"a name of somebody", nil, []wish{parameter("csi.storage.k8s.io/pvc/name", "data-0")}, codes.OK},
		{"a secret", nil, []wish{secret}, codes.OK},
	} {
		t.Run(test.what, func(t *testing.T) {
			v := l.volume(t, "v", test.first...)
			l.unchanged(t, func() {
				again, err := l.tryVolume(t, "v", test.then...)
				if refuses(t, err, test.code); err == nil {
					equals(t, "again", again, v)
				}
			})
			must(t, l.deleteVolume(t, v))
		})
	}
}
