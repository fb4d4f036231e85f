package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const deployDir = root + "/deploy/kubernetes"

// files of deploy/kubernetes/base, by what is in them.
var deployFiles = map[string]string{
	"ServiceAccount":      "serviceaccounts.yaml",
	"Role":                "roles.yaml",
	"RoleBinding":         "roles.yaml",
	"ClusterRole":         "clusterroles.yaml",
	"ClusterRoleBinding":  "clusterroles.yaml",
	"CSIDriver":           "csidriver.yaml",
	"Deployment":          "controller.yaml",
	"Service":             "controller.yaml",
	"PodDisruptionBudget": "controller.yaml",
	"DaemonSet":           "node.yaml",
	"StorageClass":        "storageclasses.yaml",
	"VolumeSnapshotClass": "volumesnapshotclasses.yaml",
}

// withSnapshots is what deploy/kubernetes is made with: a file cannot see what a cluster has.
var withSnapshots = map[string]any{"snapshotter": map[string]any{"enabled": "always"}}

func TestDeployIsWhatTheChartMakes(t *testing.T) {
	want := map[string]string{}
	for _, document := range usual.manifest(t, withSnapshots) {
		kind := typeOf(t, document).Kind
		if kind == "ConfigMap" { // of which kustomize makes one, with a hash in its name
			file := decode(t, document).(*corev1.ConfigMap)
			mustBe(t, deployDir+"/base/config.yaml", file.Data["config.yaml"])
			continue
		}
		name, known := deployFiles[kind]
		if !known {
			t.Fatalf("no file is for a %s", kind)
		}
		if want[name] == "" {
			want[name] = "# Made from charts/csi-dmthin.\n"
		}
		want[name] += "---\n" + document
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		mustBe(t, filepath.Join(deployDir, "base", name), want[name])
	}

	var base struct{ Resources []string }
	if err := yaml.Unmarshal([]byte(readText(t, deployDir+"/base/kustomization.yaml")), &base); err != nil {
		t.Fatal(err)
	}
	expected := append(slices.Collect(maps.Keys(want)), "namespace.yaml")
	if slices.Sort(expected); !slices.Equal(slices.Sorted(slices.Values(base.Resources)), expected) {
		t.Errorf("kustomization.yaml names %q, want %q", base.Resources, expected)
	}
	have, err := filepath.Glob(deployDir + "/base/*.yaml")
	if err != nil || len(have) != len(expected)+2 { // and config.yaml, and kustomization.yaml
		t.Errorf("base has the files %q: is one too many? (%v)", have, err)
	}
}

func kustomize(t *testing.T, dir string) (all objects) {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := made.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range documents(string(text)) {
		all = append(all, decode(t, document))
	}
	return all
}

func TestKustomize(t *testing.T) {
	base := kustomize(t, deployDir+"/base")
	if want := len(usual.manifest(t, withSnapshots)) + 1; len(base) != want {
		t.Errorf("base has %d objects, want %d", len(base), want)
	}
	if labels := theOnly[*corev1.Namespace](t, base).Labels; labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("the namespace does not allow agents: %v", labels)
	}

	overlay := kustomize(t, deployDir+"/overlays/disks")
	names := map[string]bool{}
	for _, all := range []objects{base, overlay} {
		file := theOnly[*corev1.ConfigMap](t, all)
		names[file.Name] = true
		checkAgentFile(t, file)
		agents := theOnly[*appsv1.DaemonSet](t, all).Spec.Template.Spec
		config := slices.IndexFunc(agents.Volumes, func(v corev1.Volume) bool { return v.Name == "config" })
		if have := agents.Volumes[config].ConfigMap.Name; have != file.Name {
			t.Errorf("agents have the file of %s, want %s", have, file.Name)
		}
	}
	if len(names) != 2 {
		t.Errorf("base and overlay have one ConfigMap, %v: the change would start no agent anew", names)
	}
}

// Examples decode, and their classes are there.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(deployDir + "/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all objects
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range documents(string(text)) {
			all = append(all, decode(t, document))
		}
	}
	made := usual.objects(t, withSnapshots)
	for _, claim := range allOf[*corev1.PersistentVolumeClaim](all) {
		class := named[*storagev1.StorageClass](t, made, *claim.Spec.StorageClassName)
		if immediate := *class.VolumeBindingMode == storagev1.VolumeBindingImmediate; immediate != (claim.Spec.DataSource != nil) {
			t.Errorf("the claim %s has the class %s", claim.Name, class.Name)
		}
	}
	for _, snapshot := range allOf[*volumeSnapshot](all) {
		named[*volumeSnapshotClass](t, made, snapshot.Spec.VolumeSnapshotClassName)
		named[*corev1.PersistentVolumeClaim](t, all, snapshot.Spec.Source.PersistentVolumeClaimName)
	}
	for _, pod := range allOf[*corev1.Pod](all) {
		for _, volume := range pod.Spec.Volumes {
			named[*corev1.PersistentVolumeClaim](t, all, volume.PersistentVolumeClaim.ClaimName)
		}
	}
}
