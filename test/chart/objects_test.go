package chart

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// forEachFile renders each file of values, on a cluster with all APIs and on one without.
func forEachFile(t *testing.T, check func(t *testing.T, values map[string]any, all objects)) {
	t.Helper()
	rich := usual
	rich.apis = []string{snapshotAPI, prometheusAPI}
	for _, file := range valueFiles(t) {
		values := readValues(t, file)
		name := strings.TrimSuffix(filepath.Base(file), "-values.yaml")
		t.Run(name, func(t *testing.T) { check(t, values, usual.objects(t, values)) })
		t.Run(name+" with all APIs", func(t *testing.T) { check(t, values, rich.objects(t, values)) })
	}
}

// Nothing is made up while rendering: no key, no time, no name. And what the release is called shows in a label only.
func TestRenderingTwiceIsTheSame(t *testing.T) {
	other := usual
	other.name = "storage"
	for _, file := range valueFiles(t) {
		values := readValues(t, file)
		first := usual.manifest(t, values)
		if !slices.Equal(first, usual.manifest(t, values)) {
			t.Errorf("%s: rendered twice, it differs", file)
		}
		for i, document := range other.manifest(t, values) {
			if document != strings.ReplaceAll(first[i], "/instance: csi-dmthin", "/instance: storage") {
				t.Errorf("%s: the release's name shows in more than a label:\n%s", file, document)
			}
		}
	}
}

var leftover = regexp.MustCompile(`<no value>|<nil>|: null\b|%!|map\[|(?m:[ \t]$)`)

func TestTextIsWhole(t *testing.T) {
	for _, file := range valueFiles(t) {
		for _, document := range usual.manifest(t, readValues(t, file)) {
			if found := leftover.FindString(document); found != "" {
				t.Errorf("%s: %q in\n%s", file, found, document)
			}
		}
	}
}

func kindOf(o metav1.Object) string {
	return o.(interface{ GetObjectKind() schema.ObjectKind }).GetObjectKind().GroupVersionKind().Kind
}

func TestObjectsAreWhereTheyBelong(t *testing.T) {
	forEachFile(t, func(t *testing.T, values map[string]any, all objects) {
		seen := map[string]bool{}
		for _, o := range all {
			key := kindOf(o) + " " + o.GetName()
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
			want := usual.namespace
			if clusterWide[kindOf(o)] {
				want = ""
			}
			if o.GetNamespace() != want {
				t.Errorf("%s is in the namespace %q, want %q", key, o.GetNamespace(), want)
			}
			for _, label := range []string{"name", "component", "instance", "version"} {
				if o.GetLabels()["app.kubernetes.io/"+label] == "" {
					t.Errorf("%s has no label %s", key, label)
				}
			}
			if values["commonLabels"] != nil && o.GetLabels()["team"] != "storage" {
				t.Errorf("%s has no common label", key)
			}
			if kindOf(o) == "Secret" {
				t.Errorf("%s: the chart makes no keys", key)
			}
		}
	})
}

// podsOf returns the templates of pods, by the name of what makes them.
func podsOf(all objects) map[string]corev1.PodTemplateSpec {
	templates := map[string]corev1.PodTemplateSpec{}
	for _, d := range allOf[*appsv1.Deployment](all) {
		templates[d.Name] = d.Spec.Template
	}
	for _, d := range allOf[*appsv1.DaemonSet](all) {
		templates[d.Name] = d.Spec.Template
	}
	return templates
}

func containersOf(p corev1.PodSpec) []corev1.Container {
	return slices.Concat(p.InitContainers, p.Containers)
}

// What a pod's parts say about each other agrees.
func TestPodsAreWhole(t *testing.T) {
	forEachFile(t, func(t *testing.T, _ map[string]any, all objects) {
		for name, pod := range podsOf(all) {
			unused := map[string]bool{}
			for _, v := range pod.Spec.Volumes {
				unused[v.Name] = true
				checkVolume(t, all, v)
			}
			known := len(unused)
			named[*corev1.ServiceAccount](t, all, pod.Spec.ServiceAccountName)
			for _, c := range containersOf(pod.Spec) {
				paths := map[string]bool{}
				for _, m := range c.VolumeMounts {
					if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) || paths[m.MountPath] {
						t.Errorf("%s/%s: the mount %s has no volume, or is there twice", name, c.Name, m.MountPath)
					}
					paths[m.MountPath] = true
					delete(unused, m.Name)
				}
				checkContainer(t, name, c)
			}
			if len(unused) > 0 {
				t.Errorf("%s: of %d volumes nobody uses %v", name, known, unused)
			}
		}
	})
}

// checkVolume looks for what a volume is of, unless it is made by somebody else.
func checkVolume(t *testing.T, all objects, v corev1.Volume) {
	t.Helper()
	if c := v.ConfigMap; c != nil && (c.Optional == nil || !*c.Optional) {
		named[*corev1.ConfigMap](t, all, c.Name)
	}
}

func checkContainer(t *testing.T, pod string, c corev1.Container) {
	t.Helper()
	ports := map[string]bool{}
	for _, p := range c.Ports {
		if len(p.Name) > 15 || ports[p.Name] {
			t.Errorf("%s/%s: the port %q is too long, or there twice", pod, c.Name, p.Name)
		}
		ports[p.Name] = true
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe == nil {
			continue
		}
		if paths := []string{"/healthz", "/readyz", "/healthz/leader-election"}; !ports[probe.HTTPGet.Port.StrVal] || !slices.Contains(paths, probe.HTTPGet.Path) {
			t.Errorf("%s/%s: a probe asks %v", pod, c.Name, probe.HTTPGet)
		}
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s/%s requests nothing", pod, c.Name)
	}
	if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s/%s can write to its image", pod, c.Name)
	}
	if !regexp.MustCompile(`^[a-z0-9./-]+(:v[0-9.]+|@sha256:[0-9a-f]{64})$`).MatchString(c.Image) {
		t.Errorf("%s/%s has the image %q", pod, c.Name, c.Image)
	}
	for i, arg := range c.Args {
		if slices.Contains(c.Args[:i], arg) {
			t.Errorf("%s/%s has the argument %s twice", pod, c.Name, arg)
		}
	}
}
