package chart

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// An object is one that was decoded, with what all have.
type object interface {
	metav1.Object
	comparable
}

// Of other projects' kinds, what is used here.
type (
	volumeSnapshotClass struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Driver            string            `json:"driver"`
		DeletionPolicy    string            `json:"deletionPolicy"`
		Parameters        map[string]string `json:"parameters"`
	}
	volumeSnapshot struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			VolumeSnapshotClassName string `json:"volumeSnapshotClassName"`
			Source                  struct {
				PersistentVolumeClaimName string `json:"persistentVolumeClaimName"`
			} `json:"source"`
		} `json:"spec"`
	}
	certificate struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			SecretName  string            `json:"secretName"`
			DNSNames    []string          `json:"dnsNames"`
			Duration    metav1.Duration   `json:"duration"`
			RenewBefore metav1.Duration   `json:"renewBefore"`
			Usages      []string          `json:"usages"`
			IssuerRef   map[string]string `json:"issuerRef"`
			PrivateKey  struct {
				Algorithm      string `json:"algorithm"`
				RotationPolicy string `json:"rotationPolicy"`
			} `json:"privateKey"`
		} `json:"spec"`
	}
	podMonitor struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Selector            metav1.LabelSelector `json:"selector"`
			PodMetricsEndpoints []struct {
				Port     string `json:"port"`
				Interval string `json:"interval"`
			} `json:"podMetricsEndpoints"`
		} `json:"spec"`
	}
)

var kinds = map[string]func() metav1.Object{
	"v1/ConfigMap":                              func() metav1.Object { return &corev1.ConfigMap{} },
	"v1/Namespace":                              func() metav1.Object { return &corev1.Namespace{} },
	"v1/PersistentVolumeClaim":                  func() metav1.Object { return &corev1.PersistentVolumeClaim{} },
	"v1/Pod":                                    func() metav1.Object { return &corev1.Pod{} },
	"v1/Service":                                func() metav1.Object { return &corev1.Service{} },
	"v1/ServiceAccount":                         func() metav1.Object { return &corev1.ServiceAccount{} },
	"apps/v1/DaemonSet":                         func() metav1.Object { return &appsv1.DaemonSet{} },
	"apps/v1/Deployment":                        func() metav1.Object { return &appsv1.Deployment{} },
	"cert-manager.io/v1/Certificate":            func() metav1.Object { return &certificate{} },
	"monitoring.coreos.com/v1/PodMonitor":       func() metav1.Object { return &podMonitor{} },
	"networking.k8s.io/v1/NetworkPolicy":        func() metav1.Object { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":             func() metav1.Object { return &policyv1.PodDisruptionBudget{} },
	"rbac.authorization.k8s.io/v1/ClusterRole":  func() metav1.Object { return &rbacv1.ClusterRole{} },
	"rbac.authorization.k8s.io/v1/Role":         func() metav1.Object { return &rbacv1.Role{} },
	"rbac.authorization.k8s.io/v1/RoleBinding":  func() metav1.Object { return &rbacv1.RoleBinding{} },
	"snapshot.storage.k8s.io/v1/VolumeSnapshot": func() metav1.Object { return &volumeSnapshot{} },
	"storage.k8s.io/v1/CSIDriver":               func() metav1.Object { return &storagev1.CSIDriver{} },
	"storage.k8s.io/v1/StorageClass":            func() metav1.Object { return &storagev1.StorageClass{} },
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding": func() metav1.Object {
		return &rbacv1.ClusterRoleBinding{}
	},
	"snapshot.storage.k8s.io/v1/VolumeSnapshotClass": func() metav1.Object { return &volumeSnapshotClass{} },
}

// clusterWide are the kinds that have no namespace.
var clusterWide = map[string]bool{
	"Namespace": true, "ClusterRole": true, "ClusterRoleBinding": true, "CSIDriver": true, "StorageClass": true, "VolumeSnapshotClass": true,
}

func typeOf(t *testing.T, document string) metav1.TypeMeta {
	t.Helper()
	var head metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(document), &head); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	return head
}

// decode reads an object, and refuses a field that it does not have or that is there twice.
func decode(t *testing.T, document string) metav1.Object {
	t.Helper()
	head := typeOf(t, document)
	kind, known := kinds[head.APIVersion+"/"+head.Kind]
	if !known {
		t.Fatalf("the kind %s of %s is not expected in\n%s", head.Kind, head.APIVersion, document)
	}
	into := kind()
	if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	return into
}

// objects are those of a release.
type objects []metav1.Object

func (r release) objects(t *testing.T, values map[string]any) (all objects) {
	t.Helper()
	for _, document := range r.manifest(t, values) {
		all = append(all, decode(t, document))
	}
	return all
}

// allOf returns the objects of a type.
func allOf[T object](all objects) (found []T) {
	for _, o := range all {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// theOnly returns the object of a type, of which there must be one.
func theOnly[T object](t *testing.T, all objects) T {
	t.Helper()
	found := allOf[T](all)
	if len(found) != 1 {
		t.Fatalf("there are %d objects of type %T, instead of one", len(found), *new(T))
	}
	return found[0]
}

// named returns the object of a type and name.
func named[T object](t *testing.T, all objects, name string) T {
	t.Helper()
	for _, o := range allOf[T](all) {
		if o.GetName() == name {
			return o
		}
	}
	t.Fatalf("there is no %T called %s", *new(T), name)
	return *new(T)
}
