package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (n *node) refused(err error, code codes.Code) {
	n.Helper()
	if status.Code(err) != code {
		n.Fatalf("code is %s, want %s: %v", status.Code(err), code, err)
	}
}

func mode(c *csi.VolumeCapability, m csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	c.AccessMode.Mode = m
	return c
}

// The device of a block volume is not taken away from who has its node: the next device
// gets its number.
func TestKernelServeBlockInUse(t *testing.T) {
	n := newNode(t, smallPool)
	c := blockCapability()
	a, err := n.create("a", c, 64*mib, nil)
	must(t, err)
	must(t, errors.Join(n.stage("a", a, c), n.publish("a", a, c)))
	n.refused(n.unstage("a", a), codes.FailedPrecondition)
	must(t, errors.Join(n.unpublish("a", a), n.unstage("a", a), n.delete(a)))
}

// What is published to be read cannot be written: a file system, or a block device.
func TestKernelServeReadOnly(t *testing.T) {
	n := newNode(t, smallPool)
	rox := csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	raw, err := n.create("raw", blockCapability(), 64*mib, nil)
	must(t, err)
	must(t, n.stage("raw", raw, blockCapability()))
	_, err = n.NodePublishVolume(n.ctx(), &csi.NodePublishVolumeRequest{
		VolumeId: raw, StagingTargetPath: n.staging("raw"), TargetPath: n.target("raw"), VolumeCapability: blockCapability(), Readonly: true,
	})
	n.refused(err, codes.FailedPrecondition)
	must(t, n.unstage("raw", raw))
	must(t, errors.Join(n.stage("raw", raw, mode(blockCapability(), rox)), n.publish("raw", raw, mode(blockCapability(), rox))))
	if f, err := os.OpenFile(n.target("raw"), os.O_WRONLY, 0); err == nil {
		_, err = f.Write(make([]byte, 4096))
		if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
			t.Error("a block device that is to be read was written")
		}
	}

	fs, err := n.create("fs", mountCapability("ext4"), 64*mib, nil)
	must(t, err)
	must(t, errors.Join(n.stage("fs", fs, mountCapability("ext4")), n.publish("fs", fs, mountCapability("ext4")), n.write("fs", 1)))
	must(t, os.Mkdir(n.path("kubelet/again"), 0o700))
	request := &csi.NodePublishVolumeRequest{
		VolumeId: fs, StagingTargetPath: n.staging("fs"), TargetPath: n.path("kubelet/again/x"), Readonly: true,
		VolumeCapability: mode(mountCapability("ext4"), csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER),
	}
	for range 2 {
		_, err = n.NodePublishVolume(n.ctx(), request)
		must(t, err)
	}
	if err := os.WriteFile(n.path("kubelet/again/x/file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("written where it is to be read: %v", err)
	}
	_, err = n.NodeUnpublishVolume(n.ctx(), &csi.NodeUnpublishVolumeRequest{VolumeId: fs, TargetPath: n.path("kubelet/again/x")})
	must(t, err)
	for name, id := range map[string]string{"raw": raw, "fs": fs} {
		must(t, errors.Join(n.unpublish(name, id), n.unstage(name, id), n.delete(id)))
	}
}

// A target can be given up though its device is gone.
func TestKernelServeDeviceGone(t *testing.T) {
	n := newNode(t, smallPool)
	c := blockCapability()
	a, err := n.create("a", c, 64*mib, nil)
	must(t, err)
	must(t, errors.Join(n.stage("a", a, c), n.publish("a", a, c)))
	out, err := exec.Command("sh", "-c", "dmsetup ls | cut -f1 | grep -v -e -pool -e -meta -e '-0$' | xargs -n 1 dmsetup remove").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, errors.Join(n.unpublish("a", a), n.unstage("a", a)))
	if _, err := os.Lstat(n.target("a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target is there: %v", err)
	}
	must(t, n.delete(a))
}

// The kubelet's directory may be a symbolic link, as where it was moved to a larger disk.
func TestKernelServeLinkedKubeletDir(t *testing.T) {
	n := newNode(t, smallPool)
	n.stop()
	must(t, os.Rename(n.path("kubelet"), n.path("elsewhere")))
	must(t, os.Symlink("elsewhere", n.path("kubelet")))
	n.start()
	for name, c := range map[string]*csi.VolumeCapability{"a": mountCapability("ext4"), "b": blockCapability()} {
		id, err := n.create(name, c, 64*mib, nil)
		must(t, err)
		for range 2 {
			must(t, errors.Join(n.stage(name, id, c), n.publish(name, id, c)))
		}
		for range 2 {
			must(t, errors.Join(n.unpublish(name, id), n.unstage(name, id)))
		}
		must(t, n.delete(id))
	}
}

// A file system that a block volume's user has made can be used as one, and grows.
func TestKernelServeConverted(t *testing.T) {
	n := newNode(t, smallPool)
	raw, err := n.create("raw", blockCapability(), 64*mib, nil)
	must(t, err)
	must(t, errors.Join(n.stage("raw", raw, blockCapability()), n.publish("raw", raw, blockCapability())))
	if out, err := exec.Command("mkfs.ext4", "-q", n.target("raw")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s, err := n.snapshot("s", raw)
	must(t, err)
	c := mountCapability("")
	fs, err := n.create("fs", c, 256*mib, ofSnapshot(s))
	must(t, err)
	must(t, errors.Join(n.stage("fs", fs, c), n.publish("fs", fs, c), n.larger("fs", 256*mib), n.write("fs", 1)))
	must(t, errors.Join(n.expand(fs, 512*mib), n.expandNode("fs", fs, 512*mib), n.larger("fs", 512*mib), n.reads("fs", 1)))
	for name, id := range map[string]string{"raw": raw, "fs": fs} {
		must(t, errors.Join(n.unpublish(name, id), n.unstage(name, id), n.delete(id)))
	}
	_, err = n.DeleteSnapshot(n.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: s})
	must(t, err)
}

// Arguments with which mkfs makes nothing do not count as a file system.
func TestKernelServeDryMkfs(t *testing.T) {
	n := newNode(t, smallPool)
	c := mountCapability("ext4")
	r, err := n.CreateVolume(n.ctx(), &csi.CreateVolumeRequest{
		Name: "a", VolumeCapabilities: []*csi.VolumeCapability{c}, CapacityRange: &csi.CapacityRange{RequiredBytes: 64 * mib},
		Parameters: map[string]string{"csi-dmthin.dev/mkfs-options": "-n"},
	})
	must(t, err)
	id := r.GetVolume().GetVolumeId()
	for range 2 {
		err := n.stage("a", id, c)
		n.refused(err, codes.InvalidArgument)
		if !strings.Contains(err.Error(), `"-n"`) {
			t.Errorf("the error does not name the arguments: %v", err)
		}
	}
	must(t, n.delete(id))
}

// A disk that is not there when the server starts is waited for.
func TestKernelServeLateDisk(t *testing.T) {
	n := newNode(t, smallPool)
	id, err := n.create("a", blockCapability(), 64*mib, nil)
	must(t, err)
	n.stop()
	file := filepath.Join(n.dir, "state/pools/default/devicemapper/data")
	must(t, os.Rename(file, file+".away"))
	n.launch()
	_, err = n.ControllerGetVolume(n.ctx(), &csi.ControllerGetVolumeRequest{VolumeId: id})
	n.refused(err, codes.Unavailable)
	must(t, n.unpublish("a", id)) // where there is nothing to do, nothing is wrong
	must(t, os.Rename(file+".away", file))
	n.waitForPools()
	must(t, n.delete(id))
}
