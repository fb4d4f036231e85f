package csi_test

import (
	"os"
	"path/filepath"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// A second target, after the first has been published at "one" for some use.
func TestNodePublishVolume(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what           string
		staged, first  *spec.VolumeCapability
		target         string
		second         *spec.VolumeCapability
		readOnly       bool
		code           codes.Code
		shownReadOnly  bool
		shownAsAWindow bool // the node of a block device
	}{
		{"the same", mount(""), mount(""), "one", mount(""), false, codes.OK, false, false},
		{"the same, read-only", mount(""), mount(""), "one", mount(""), true, codes.AlreadyExists, false, false},
		{"the same, in a mode to read", mount(""), mount(""), "one", mount("", rox), false, codes.AlreadyExists, false, false},
		{"the same, as a block device", mount(""), mount(""), "one", block(), false, codes.FailedPrecondition, false, false},
		{"the same, as another file system", mount(""), mount(""), "one", mount("xfs"), false, codes.FailedPrecondition, false, false},
		{"several pods", mount(""), mount(""), "two", mount(""), false, codes.OK, false, false},
		{"several pods, one reads", mount(""), mount(""), "two", mount(""), true, codes.OK, true, false},
		{"one pod alone, again", mount("", rwop), mount("", rwop), "one", mount("", rwop), false, codes.OK, false, false},
		{"one pod alone, and another", mount("", rwop), mount("", rwop), "two", mount("", rwop), false, codes.FailedPrecondition, false, false},
		{"one pod alone, and a reader", mount("", rwop), mount("", rwop), "two", mount("", rwop), true, codes.FailedPrecondition, false, false},
		{"the old mode is alone, too", mount(""), mount(""), "two", mount("", spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER), false, codes.FailedPrecondition, false, false},
		{"readers", mount("", rox), mount("", rox), "two", mount("", rox), false, codes.OK, true, false},
		{"a reader, again", mount("", rox), mount("", rox), "one", mount("", rox), true, codes.OK, true, false},
		{"what the class mounts read-only", flags(mount(""), "ro"), flags(mount(""), "ro"), "one", flags(mount(""), "ro"), false, codes.OK, true, false},
		{"a block device", block(), block(), "one", block(), false, codes.OK, false, true},
		{"a block device, twice", block(), block(), "two", block(), false, codes.OK, false, true},
		{"a block device, to read", block(rox), block(rox), "two", block(rox), true, codes.OK, true, true},
		{"a block device that can be written, to read", block(), block(), "two", block(), true, codes.FailedPrecondition, false, true},
		{"a block device alone", block(rwop), block(rwop), "two", block(rwop), false, codes.FailedPrecondition, false, true},
		{"a block device as a file system", block(), block(), "one", mount(""), false, codes.FailedPrecondition, false, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			l := run(t)
			made := mount("ext4")
			if test.staged.GetBlock() != nil {
				made = block()
			}
			v := l.volume(t, "v", access(made))
			if made.GetMount() != nil { // which has a file system, then
				must(t, l.stage(t, v, made))
				must(t, l.unstage(t, v))
			}
			must(t, l.stage(t, v, test.staged))
			must(t, l.publish(t, v, "one", test.first))
			r := publishRequest(l, v, test.target, test.second)
			r.Readonly = test.readOnly
			do := func() { equals(t, test.what, code(t, l.NodePublishVolume, r), test.code) }
			if test.code == codes.OK {
				do()
				readOnly, node, mounted := l.mountedAt(test.target)
				equals(t, "mounted, read-only, node", []bool{mounted, readOnly, node}, []bool{true, test.shownReadOnly, test.shownAsAWindow})
				st, err := os.Lstat(l.path(test.target))
				must(t, err)
				equals(t, "directory", st.IsDir(), !test.shownAsAWindow)
				do = func() { equals(t, "again", code(t, l.NodePublishVolume, r), codes.OK) }
			}
			l.unchanged(t, do)
			for _, target := range []string{"one", "two"} {
				for range 2 {
					must(t, l.unpublish(t, v, target))
				}
				equals(t, "there", l.exists(target), false)
			}
			must(t, l.unstage(t, v))
			equals(t, "active", l.isActive(t, v), false)
		})
	}
}

func TestNodePublishVolumeRefuses(t *testing.T) {
	l := run(t)
	v, raw, idle := l.volume(t, "v"), l.volume(t, "raw", access(block())), l.volume(t, "idle")
	must(t, l.stage(t, v, mount("")))
	must(t, l.stage(t, raw, block()))
	for _, test := range []struct {
		what   string
		change func(*spec.NodePublishVolumeRequest)
		code   codes.Code
	}{
		{"no id", func(r *spec.NodePublishVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		{"no capability", func(r *spec.NodePublishVolumeRequest) { r.VolumeCapability = nil }, codes.InvalidArgument},
		{"no target", func(r *spec.NodePublishVolumeRequest) { r.TargetPath = "" }, codes.InvalidArgument},
		{"no staging path", func(r *spec.NodePublishVolumeRequest) { r.StagingTargetPath = "" }, codes.FailedPrecondition},
		{"staged elsewhere", func(r *spec.NodePublishVolumeRequest) { r.StagingTargetPath = l.dir(t, "elsewhere") }, codes.FailedPrecondition},
		{"not staged", func(r *spec.NodePublishVolumeRequest) {
			r.VolumeId, r.StagingTargetPath = idle.GetVolumeId(), l.staging(idle)
		}, codes.FailedPrecondition},
		{"another is staged there", func(r *spec.NodePublishVolumeRequest) { r.VolumeId = idle.GetVolumeId() }, codes.FailedPrecondition},
		{"unknown", func(r *spec.NodePublishVolumeRequest) { r.VolumeId += "x" }, codes.NotFound},
		{"no id of ours", func(r *spec.NodePublishVolumeRequest) { r.VolumeId = "fake" }, codes.NotFound},
		{"many writers", func(r *spec.NodePublishVolumeRequest) { r.VolumeCapability = mount("", rwx) }, codes.InvalidArgument},
		{"a target without a parent", func(r *spec.NodePublishVolumeRequest) { r.TargetPath = l.path("no/such/parent") }, codes.InvalidArgument},
		{"a target that is the staging path", func(r *spec.NodePublishVolumeRequest) { r.TargetPath = r.StagingTargetPath }, codes.InvalidArgument},
		{"a target that is a file", func(r *spec.NodePublishVolumeRequest) {
			r.TargetPath = l.path("file")
			must(t, os.WriteFile(r.GetTargetPath(), []byte("somebody's"), 0o600))
		}, codes.InvalidArgument},
		{"a target below a file", func(r *spec.NodePublishVolumeRequest) { r.TargetPath = l.path("file/target") }, codes.InvalidArgument},
		{"a directory for a block device", func(r *spec.NodePublishVolumeRequest) {
			r.VolumeId, r.StagingTargetPath, r.VolumeCapability = raw.GetVolumeId(), l.staging(raw), block()
			r.TargetPath = l.dir(t, "directory")
		}, codes.InvalidArgument},
	} {
		r := publishRequest(l, v, "target", mount(""))
		test.change(r)
		l.unchanged(t, func() { equals(t, test.what, code(t, l.NodePublishVolume, r), test.code) })
	}
	content, err := os.ReadFile(l.path("file"))
	must(t, err)
	equals(t, "the file", string(content), "somebody's")
}

// What somebody else has mounted where a volume is to be is left alone, and so is what
// somebody has put there.
func TestForeignTargets(t *testing.T) {
	l := run(t)
	v, other := l.volume(t, "v"), l.volume(t, "other")
	for _, of := range []*spec.Volume{v, other} {
		must(t, l.stage(t, of, mount("")))
	}
	must(t, l.publish(t, other, "other", mount("")))
	table := l.foreignDevice(t, "theirs", l.dir(t, "foreign"))
	l.unchanged(t, func() {
		for _, target := range []string{"other", "foreign"} {
			refuses(t, l.publish(t, v, target, mount("")), codes.AlreadyExists, l.path(target))
			refuses(t, l.unpublish(t, v, target), codes.FailedPrecondition, l.path(target))
			refuses(t, l.unpublish(t, &spec.Volume{VolumeId: v.GetVolumeId() + "x"}, "foreign"), codes.FailedPrecondition, l.path("foreign"))
			r := &spec.NodeStageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.path(target), VolumeCapability: mount("")}
			equals(t, "stage", code(t, l.NodeStageVolume, r), codes.AlreadyExists)
			u := &spec.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.path(target)}
			equals(t, "unstage", code(t, l.NodeUnstageVolume, u), codes.FailedPrecondition)
		}
	})
	table()

	must(t, os.Mkdir(l.path("full"), 0o750))
	must(t, os.WriteFile(l.path("full/precious"), []byte("x"), 0o600))
	must(t, os.WriteFile(l.path("precious"), []byte("x"), 0o600))
	l.unchanged(t, func() {
		for _, target := range []string{"full", "precious"} {
			refuses(t, l.unpublish(t, v, target), codes.FailedPrecondition, l.path(target))
		}
	})
	equals(t, "precious", []bool{l.exists("full/precious"), l.exists("precious")}, []bool{true, true})
}

// Paths are those that the kubelet gives, or none.
func TestPaths(t *testing.T) {
	l := run(t)
	v := l.volume(t, "v")
	must(t, l.stage(t, v, mount("")))
	outside := t.TempDir()
	must(t, os.Symlink(outside, l.path("link")))
	must(t, os.Symlink(l.dir(t, "inner"), l.path("inner-link")))
	must(t, os.Symlink("nowhere", l.path("dangling")))
	for _, path := range []string{
		outside, filepath.Join(outside, "target"), "/", "/etc", "relative", "./x", l.world.KubeletDir, l.world.KubeletDir + "/", l.world.KubeletDir + "x",
		l.path("x") + "/", l.path("x") + "/.", l.world.KubeletDir + "//x", l.world.KubeletDir + "/../x", l.world.KubeletDir + "/a/../x", l.world.KubeletDir + "/..",
		l.path("link"), l.path("link/target"), l.path("inner-link/target"), l.path("dangling"), l.path("x\x00y"), "/proc/self/root" + l.path("x"),
		l.path(string(make([]byte, 5000))),
	} {
		l.unchanged(t, func() {
			p := publishRequest(l, v, "x", mount(""))
			p.TargetPath = path
			equals(t, "publish at "+path, code(t, l.NodePublishVolume, p), codes.InvalidArgument)
			p = publishRequest(l, v, "x", mount(""))
			p.StagingTargetPath = path
			equals(t, "publish from "+path, code(t, l.NodePublishVolume, p), codes.InvalidArgument)
			for what, c := range map[string]codes.Code{
				"unpublish": code(t, l.NodeUnpublishVolume, &spec.NodeUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), TargetPath: path}),
				"stage":     code(t, l.NodeStageVolume, &spec.NodeStageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: path, VolumeCapability: mount("")}),
				"unstage":   code(t, l.NodeUnstageVolume, &spec.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: path}),
			} {
				equals(t, what+" at "+path, c, codes.InvalidArgument)
			}
			for what, c := range map[string]codes.Code{
				"stats":  code(t, l.NodeGetVolumeStats, &spec.NodeGetVolumeStatsRequest{VolumeId: v.GetVolumeId(), VolumePath: path}),
				"expand": code(t, l.NodeExpandVolume, &spec.NodeExpandVolumeRequest{VolumeId: v.GetVolumeId(), VolumePath: path}),
			} {
				equals(t, what+" at "+path, c, codes.NotFound)
			}
		})
	}
	equals(t, "outside", must1(os.ReadDir(outside)), []os.DirEntry{})

	// The directory itself may be a link, as /var/lib often is.
	link := filepath.Join(t.TempDir(), "kubelet")
	must(t, os.Symlink(t.TempDir(), link))
	w := newWorld(t)
	w.KubeletDir = link
	l = runOn(t, w)
	v = l.volume(t, "v")
	must(t, l.stage(t, v, mount("")))
	must(t, l.publish(t, v, "target", mount("")))
	must(t, l.unpublish(t, v, "target"))
	must(t, l.unstage(t, v))
}
