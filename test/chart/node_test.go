package chart

import (
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func TestAgents(t *testing.T) {
	forEachFile(t, func(t *testing.T, values map[string]any, all objects) {
		kubelet, state := "/var/lib/kubelet", "/var/lib/csi-dmthin"
		if values["kubeletDir"] != nil {
			kubelet, state = values["kubeletDir"].(string), values["stateDir"].(string)
		}
		for _, d := range allOf[*appsv1.DaemonSet](all) {
			pod := d.Spec.Template.Spec
			if len(pod.Containers) != 1 || len(pod.InitContainers) > 0 || pod.HostPID || pod.HostIPC || pod.HostNetwork || *pod.AutomountServiceAccountToken {
				t.Errorf("%s: more than one container with no token and no namespace of the node: %+v", d.Name, pod)
			}
			c := pod.Containers[0]
			if !*c.SecurityContext.Privileged || c.Env[0].Name != "NODE_NAME" || c.Env[0].ValueFrom.FieldRef.FieldPath != "spec.nodeName" {
				t.Errorf("%s cannot work: %+v", d.Name, c)
			}
			if update := d.Spec.UpdateStrategy.RollingUpdate; update.MaxSurge.IntVal != 0 || update.MaxSurge.StrVal != "" {
				t.Errorf("%s: two agents for a pool at a time", d.Name)
			}
			checkHostPaths(t, pod, kubelet, state)
			checkToken(t, pod)
			for _, path := range []string{"/run", "/tmp"} {
				mount := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path && !m.ReadOnly })
				if mount < 0 || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool {
					return v.Name == c.VolumeMounts[mount].Name && v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory
				}) {
					t.Errorf("%s: there is no tmpfs at %s", d.Name, path)
				}
			}

			config := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "config" })
			file := checkAgentFile(t, named[*corev1.ConfigMap](t, all, pod.Volumes[config].ConfigMap.Name))
			if file.KubeletDir != kubelet || file.StateDir != state || file.Endpoint != "unix://"+kubelet+"/plugins/csi-dmthin.dev/csi.sock" {
				t.Errorf("%s: the agent's paths are not those of its mounts: %+v", d.Name, file)
			}
		}
		checkApart(t, allOf[*appsv1.DaemonSet](all))
	})
}

// checkHostPaths holds the paths of the node against the three that are needed, which are the same inside.
func checkHostPaths(t *testing.T, pod corev1.PodSpec, kubelet, state string) {
	t.Helper()
	have := map[string]string{}
	for _, v := range pod.Volumes {
		if v.HostPath == nil {
			continue
		}
		have[v.HostPath.Path] = "none"
		for _, m := range pod.Containers[0].VolumeMounts {
			if m.Name != v.Name {
				continue
			}
			if m.MountPath != v.HostPath.Path || m.ReadOnly || m.SubPath != "" {
				t.Errorf("%s of the node is %s inside", v.HostPath.Path, m.MountPath)
			}
			if m.MountPropagation != nil {
				have[v.HostPath.Path] = string(*m.MountPropagation)
			}
		}
	}
	if want := map[string]string{kubelet: "Bidirectional", state: "none", "/dev": "none"}; !maps.Equal(have, want) {
		t.Errorf("the agent has of its node %v, want %v", have, want)
	}
}

func checkToken(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Projected != nil })
	token := pod.Volumes[i].Projected.Sources[0].ServiceAccountToken
	if token.Audience != "csi-dmthin.dev/gateway" || token.Path != "token" || *token.ExpirationSeconds != 3600 {
		t.Errorf("the token is %+v", token)
	}
	for _, m := range pod.Containers[0].VolumeMounts {
		if m.Name == pod.Volumes[i].Name && m.MountPath != "/var/run/secrets/csi-dmthin.dev/gateway" {
			t.Errorf("the token is below %s", m.MountPath)
		}
	}
}

// checkApart sees to it that no two groups have each other's pods, or a node together.
func checkApart(t *testing.T, all []*appsv1.DaemonSet) {
	t.Helper()
	for _, d := range all {
		apart := d.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		if len(apart) != 1 || apart[0].TopologyKey != corev1.LabelHostname {
			t.Fatalf("%s shares its nodes: %v", d.Name, apart)
		}
		flees, err := metav1.LabelSelectorAsSelector(apart[0].LabelSelector)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range all {
			pod := labels.Set(other.Spec.Template.Labels)
			if mine := labels.SelectorFromSet(d.Spec.Selector.MatchLabels).Matches(pod); mine != (d == other) {
				t.Errorf("has %s the pods of %s? %v", d.Name, other.Name, mine)
			}
			if flees.Matches(pod) == (d == other) {
				t.Errorf("does %s keep off the pods of %s? %v", d.Name, other.Name, flees.Matches(pod))
			}
		}
	}
}

func TestGroups(t *testing.T) {
	all := usual.objects(t, readValues(t, chartDir+"/ci/groups-values.yaml"))
	tolerations := map[string]int{"fast": 1, "large": 1, "lvm": 0}
	for name, disks := range map[string]string{"fast": "nvme", "large": "hdd", "lvm": "lvm"} {
		d := named[*appsv1.DaemonSet](t, all, "csi-dmthin-node-"+name)
		pod := d.Spec.Template.Spec
		if !maps.Equal(pod.NodeSelector, map[string]string{"kubernetes.io/os": "linux", "disks": disks}) || len(pod.Tolerations) != tolerations[name] {
			t.Errorf("%s goes to %v and tolerates %v", name, pod.NodeSelector, pod.Tolerations)
		}
	}
	large := checkAgentFile(t, named[*corev1.ConfigMap](t, all, "csi-dmthin-node-large"))
	want := map[string]any{
		"datadev": "/dev/disk/by-id/ata-data", "metadatadev": "/dev/disk/by-id/ata-meta", "blocksize": "1M", "error_if_no_space": false, "grow-to": "4.5TiB",
	}
	if !maps.Equal(large.Pools["bulk"], want) {
		t.Errorf("bulk is %v, want %v", large.Pools["bulk"], want)
	}
	if lvm := checkAgentFile(t, named[*corev1.ConfigMap](t, all, "csi-dmthin-node-lvm")); lvm.Pools["default"]["thinpooldev"] != "vg-pool-tpool" {
		t.Errorf("the pool of LVM is %v", lvm.Pools)
	}
}

func TestNodesWithOtherPools(t *testing.T) {
	all := usual.objects(t, readValues(t, chartDir+"/ci/nodes-values.yaml"))
	file := checkAgentFile(t, theOnly[*corev1.ConfigMap](t, all))
	want := map[string]agentPools{
		"worker-3.example.com": {
			"default": {"loopdatasize": "5GiB", "preallocate": true}, "scratch": {"loopdatasize": "512MiB", "preallocate": false},
		},
		"007": {"default": {"loopdatasize": "10GiB", "preallocate": true}},
	}
	same := maps.EqualFunc(file.Nodes, want, func(have agentOf, want agentPools) bool {
		return maps.EqualFunc(have.Pools, want, func(a, b map[string]any) bool { return maps.Equal(a, b) })
	})
	if !same {
		t.Errorf("nodes have %v, want %v", file.Nodes, want)
	}
}

// A change of what agents read starts them anew, and nothing else does.
func TestChecksum(t *testing.T) {
	template := func(values map[string]any) map[string]string {
		return theOnly[*appsv1.DaemonSet](t, usual.objects(t, values)).Spec.Template.Annotations
	}
	base := template(nil)
	other := template(map[string]any{"pools": map[string]any{"default": map[string]any{"loopback": map[string]any{"size": "21Gi"}}}})
	same := template(map[string]any{"controller": map[string]any{"replicas": 3}})
	if maps.Equal(base, other) || !maps.Equal(base, same) {
		t.Errorf("have %v, with another pool %v, with another controller %v", base, other, same)
	}
}

func TestDriver(t *testing.T) {
	forEachFile(t, func(t *testing.T, _ map[string]any, all objects) {
		d := theOnly[*storagev1.CSIDriver](t, all)
		s := d.Spec
		if d.Name != "csi-dmthin.dev" || *s.AttachRequired || *s.PodInfoOnMount || !*s.StorageCapacity || !*s.SELinuxMount ||
			*s.FSGroupPolicy != storagev1.FileFSGroupPolicy || !slices.Equal(s.VolumeLifecycleModes, []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}) {
			t.Errorf("the driver is %+v", s)
		}
	})
}

// Each class has a twin for restores, which differs in the moment of binding alone.
func TestClasses(t *testing.T) {
	all := usual.objects(t, readValues(t, chartDir+"/ci/xfs-and-block-values.yaml"))
	for name, pool := range map[string]string{"xfs": "files", "block": "raw"} {
		class, twin := named[*storagev1.StorageClass](t, all, name), named[*storagev1.StorageClass](t, all, name+"-restore")
		if class.Provisioner != "csi-dmthin.dev" || class.Parameters["csi-dmthin.dev/pool"] != pool || !*class.AllowVolumeExpansion ||
			*class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer || *twin.VolumeBindingMode != storagev1.VolumeBindingImmediate {
			t.Errorf("the class is %+v, its twin %+v", class, twin)
		}
		if !maps.Equal(class.Parameters, twin.Parameters) || !slices.Equal(class.MountOptions, twin.MountOptions) || *class.ReclaimPolicy != *twin.ReclaimPolicy {
			t.Errorf("%+v differs from %+v", class, twin)
		}
	}
	if kept := theOnly[*volumeSnapshotClass](t, all); kept.DeletionPolicy != "Retain" || kept.Driver != "csi-dmthin.dev" || len(kept.Annotations) > 0 {
		t.Errorf("the class of snapshots is %+v", kept)
	}

	all = usual.objects(t, readValues(t, chartDir+"/ci/groups-values.yaml"))
	if classes := allOf[*storagev1.StorageClass](all); len(classes) != 3 { // fast, its twin, bulk
		t.Errorf("there are %d classes", len(classes))
	}
	want := map[string]string{
		"csi.storage.k8s.io/fstype": "xfs", "csi-dmthin.dev/pool": "bulk", "csi-dmthin.dev/mkfs-options": "-m reflink=0", "csi-dmthin.dev/discard": "true",
	}
	bulk := named[*storagev1.StorageClass](t, all, "bulk")
	if !maps.Equal(bulk.Parameters, want) || *bulk.ReclaimPolicy != corev1.PersistentVolumeReclaimRetain || !slices.Equal(bulk.MountOptions, []string{"noatime"}) {
		t.Errorf("bulk is %+v", bulk)
	}
	for name, isDefault := range map[string]bool{"fast": true, "fast-restore": false, "bulk": false} {
		if _, has := named[*storagev1.StorageClass](t, all, name).Annotations["storageclass.kubernetes.io/is-default-class"]; has != isDefault {
			t.Errorf("is %s the default? %v", name, has)
		}
	}
}
