package main

import (
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func misspeltKey(s *scene) {
	s.claimOfClass(map[string]string{"csi-dmthin.dev/pol": "default"})
	s.told("PersistentVolumeClaim", "data", "csi-dmthin.dev/pol")
}

func unknownPool(s *scene) {
	s.claimOfClass(map[string]string{"csi-dmthin.dev/pool": "nowhere"})
	s.told("PersistentVolumeClaim", "data", "nowhere", "default")
}

// claimOfClass asks for a volume of a new class, and for a pod that uses it.
func (s *scene) claimOfClass(parameters map[string]string) {
	waits := storagev1.VolumeBindingWaitForFirstConsumer
	classes := s.api.StorageV1().StorageClasses()
	class, err := classes.Create(s.ctx, &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{GenerateName: "e2e-"},
		Provisioner:       driver,
		Parameters:        parameters,
		VolumeBindingMode: &waits,
	}, metav1.CreateOptions{})
	s.must(err, "create a class")
	s.finally(func() {
		s.must(classes.Delete(s.ctx, class.Name, metav1.DeleteOptions{}), "delete the class")
	})
	s.claim("data", "128Mi", class.Name)
	s.pod("pod", with("data"))
}
