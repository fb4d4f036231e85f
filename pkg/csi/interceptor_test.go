package csi_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

// A logBook keeps what is logged, at level 5.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBook) logger() klog.Logger {
	return textlogger.NewLogger(textlogger.NewConfig(textlogger.Verbosity(5), textlogger.Output(b)))
}

// withHost runs a driver on a host that a test has made something of, and reads its log.
func withHost(t *testing.T, make func(csitest.Host) csi.Host) (*lab, *logBook) {
	w := newWorld(t)
	m := w.Process(nil)
	o := w.OptionsOn(csitest.Machine{Machine: m}, make(csitest.Host{Machine: m}))
	d, book := csi.New(o), &logBook{}
	must(t, o.Pools[0].TryOpen())
	t.Cleanup(func() { must(t, d.Close()) })
	return &lab{&csitest.Node{Client: csitest.Connect(t, d, book.logger(), nil), Driver: d, Machine: m}, w}, book
}

// A clumsy host panics when it is asked to show something.
type clumsy struct{ csitest.Host }

func (clumsy) Bind(string, string, bool) error { panic("index out of range, or the like") }

// A call that panics is answered, and neither others nor its volume suffer.
func TestPanic(t *testing.T) {
	l, book := withHost(t, func(h csitest.Host) csi.Host { return clumsy{h} })
	v := l.volume(t, "v")
	must(t, l.stage(t, v, mount("")))
	for range 3 {
		err := l.publish(t, v, "pod", mount(""))
		refuses(t, err, codes.Internal, "log")
		if strings.Contains(err.Error(), "index") || strings.Contains(err.Error(), ".go") {
			t.Errorf("it tells too much: %v", err)
		}
	}
	for _, word := range []string{"index out of range", "interceptor_test.go", "v-v", "NodePublishVolume"} {
		if !strings.Contains(book.String(), word) {
			t.Errorf("the log has no %q", word)
		}
	}
	must(t, l.unpublish(t, v, "pod")) // nothing holds it
	must(t, l.unstage(t, v))
	must(t, l.deleteVolume(t, v))
}

// While a call about a volume is being carried out, others that change it are to be asked
// again; those that only look, and those about others, are not.
func TestPending(t *testing.T) {
	l, b, _ := braked(t)
	v, other := l.volume(t, "v"), l.volume(t, "other")
	must(t, l.stage(t, v, mount("")))
	b.next()
	published := make(chan error, 1)
	go func() { published <- l.publish(t, v, "pod", mount("")) }()
	<-b.reached
	id := v.GetVolumeId()
	l.dir(t, "staging-"+other.GetVolumeId())
	for what, test := range map[string]struct{ have, want codes.Code }{
		"create":       {statusOf(l.tryVolume(t, "v")), codes.Aborted},
		"delete":       {status.Code(l.deleteVolume(t, v)), codes.Aborted},
		"publish":      {status.Code(l.publish(t, v, "other", mount(""))), codes.Aborted},
		"unpublish":    {status.Code(l.unpublish(t, v, "pod")), codes.Aborted},
		"unstage":      {status.Code(l.unstage(t, v)), codes.Aborted},
		"expand":       {code(t, l.ControllerExpandVolume, expandRequest(v, gib)), codes.Aborted},
		"node expand":  {code(t, l.NodeExpandVolume, &spec.NodeExpandVolumeRequest{VolumeId: id, VolumePath: l.staging(v)}), codes.Aborted},
		"stats":        {code(t, l.NodeGetVolumeStats, &spec.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: l.staging(v)}), codes.OK},
		"health":       {code(t, l.NodeGetVolumeHealth, &spec.NodeGetVolumeHealthRequest{VolumeId: id}), codes.OK},
		"get":          {code(t, l.ControllerGetVolume, &spec.ControllerGetVolumeRequest{VolumeId: id}), codes.OK},
		"list":         {code(t, l.ListVolumes, &spec.ListVolumesRequest{}), codes.OK},
		"capacity":     {code(t, l.GetCapacity, &spec.GetCapacityRequest{}), codes.OK},
		"snapshot":     {statusOf(l.trySnapshot(t, "s", v)), codes.OK},
		"another":      {status.Code(l.stage(t, other, mount(""))), codes.OK},
		"validate":     {code(t, l.ValidateVolumeCapabilities, &spec.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*spec.VolumeCapability{mount("")}}), codes.OK},
		"a new volume": {statusOf(l.tryVolume(t, "new")), codes.OK},
	} {
		equals(t, what, test.have, test.want)
	}
	close(b.release)
	must(t, <-published)
	must(t, l.unpublish(t, v, "pod"))
}

func statusOf[T any](_ T, err error) codes.Code { return status.Code(err) }

// What may be secret is in no log and in no answer.
func TestSecrets(t *testing.T) {
	const secret = "hunter2"
	l, book := withHost(t, func(h csitest.Host) csi.Host { return h })
	v := l.volume(t, "v")
	s := l.snapshot(t, "s", v)
	id := v.GetVolumeId()
	l.dir(t, "staging-"+id)
	for _, test := range []struct {
		do      func(context.Context, proto.Message) error
		request proto.Message
	}{
		{takes(l.CreateVolume), volumeRequest("new", size(mib, 0))},
		{takes(l.CreateVolume), volumeRequest("new", size(1<<60, 0))},
		{takes(l.ValidateVolumeCapabilities), &spec.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*spec.VolumeCapability{mount("")}}},
		{takes(l.ControllerExpandVolume), expandRequest(v, gib)},
		{takes(l.CreateSnapshot), &spec.CreateSnapshotRequest{Name: "new", SourceVolumeId: id}},
		{takes(l.ListSnapshots), &spec.ListSnapshotsRequest{}},
		{takes(l.GetSnapshot), &spec.GetSnapshotRequest{SnapshotId: s.GetSnapshotId()}},
		{takes(l.NodeStageVolume), &spec.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: l.staging(v), VolumeCapability: mount("")}},
		{takes(l.NodePublishVolume), publishRequest(l, v, "pod", mount(""))},
		{takes(l.NodeExpandVolume), &spec.NodeExpandVolumeRequest{VolumeId: id, VolumePath: l.path("pod")}},
		{takes(l.NodeUnpublishVolume), &spec.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: l.path("pod")}},
		{takes(l.NodeUnstageVolume), &spec.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: l.staging(v)}},
		{takes(l.DeleteSnapshot), &spec.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()}},
		{takes(l.DeleteVolume), &spec.DeleteVolumeRequest{VolumeId: id}},
	} {
		m := test.request.ProtoReflect()
		fields := m.Descriptor().Fields()
		for _, name := range []protoreflect.Name{"secrets", "volume_context", "publish_context"} {
			if f := fields.ByName(name); f != nil {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString("token").MapKey(), protoreflect.ValueOfString(secret))
			}
		}
		requests := []proto.Message{test.request, proto.Clone(test.request)} // and one that is refused
		for _, name := range []protoreflect.Name{"volume_id", "snapshot_id", "name", "source_volume_id"} {
			if f := fields.ByName(name); f != nil {
				requests[1].ProtoReflect().Set(f, protoreflect.ValueOfString("\x00"))
			}
		}
		for _, r := range requests {
			if err := test.do(t.Context(), r); err != nil && strings.Contains(err.Error(), secret) {
				t.Error(err)
			}
		}
		if method := strings.TrimSuffix(string(m.Descriptor().Name()), "Request"); !strings.Contains(book.String(), `"`+method+`"`) {
			t.Errorf("the log has no %s", method)
		}
	}
	if strings.Contains(book.String(), secret) {
		t.Errorf("the log has it: %s", book)
	}
}

// One line says of a call what it was about and how it ended.
func TestLog(t *testing.T) {
	l, book := withHost(t, func(h csitest.Host) csi.Host { return h })
	v := l.volume(t, "pvc-1")
	refuses(t, l.stage(t, v, block()), codes.FailedPrecondition)
	long := strings.Repeat("x", 100000)
	refuses(t, l.stage(t, &spec.Volume{VolumeId: "a"}, mount("")), codes.NotFound)
	must(t, l.deleteVolume(t, &spec.Volume{VolumeId: long}))
	for _, words := range [][]string{
		{`method="CreateVolume"`, `about="v-pvc-1"`, "took="},
		{`method="NodeStageVolume"`, `about="v-pvc-1"`, `code="FailedPrecondition"`, "err="},
		{`method="NodeStageVolume"`, `about="a"`, `code="NotFound"`},
	} {
		found := 0
	lines:
		for line := range strings.Lines(book.String()) {
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue lines
				}
			}
			found++
		}
		if found != 1 {
			t.Errorf("%d lines with %s in\n%.3000s", found, strings.Join(words, " "), book)
		}
	}
	if strings.Contains(book.String(), long[:200]) {
		t.Error("the log has a name as long as somebody liked")
	}
	for line := range strings.Lines(book.String()) {
		if strings.HasPrefix(line, "E") {
			t.Errorf("nothing of this is an error: %s", line)
		}
	}
}

// Each call is counted once, under its code.
func TestObserve(t *testing.T) {
	w := newWorld(t)
	m := w.Process(nil)
	d := csi.New(w.Options(m))
	must(t, d.Pools[0].TryOpen())
	t.Cleanup(func() { must(t, d.Close()) })
	seen := map[string]int{}
	var mu sync.Mutex
	c := csitest.Connect(t, d, klog.Logger{}, func(method, code string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if seen[method+" "+code]++; took < 0 {
			t.Errorf("it took %v", took)
		}
	})
	l := &lab{&csitest.Node{Client: c, Driver: d, Machine: m}, w}
	must(t, l.deleteVolume(t, l.volume(t, "v")))
	_, err := l.tryVolume(t, "")
	refuses(t, err, codes.InvalidArgument)
	mu.Lock()
	defer mu.Unlock()
	equals(t, "seen", seen, map[string]int{
		"/csi.v1.Controller/CreateVolume OK": 1, "/csi.v1.Controller/DeleteVolume OK": 1, "/csi.v1.Controller/CreateVolume InvalidArgument": 1,
	})
}
