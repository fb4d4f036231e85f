package devmapper

import "strings"

// GetVersion returns the version of device-mapper's interface, such as 4.47.0
// for Linux 6.1.
func GetVersion(k Kernel) (TargetVersion, error) {
	reply, err := do(k, Request{Command: Version})
	return reply.Version, err
}

// GetTarget returns the version of one target type, and has the kernel load its
// module first if need be. EINVAL means that there is no such target; kernels
// whose interface is older than 4.41 answer ENOTTY to the question.
func GetTarget(k Kernel, name string) (TargetVersion, error) {
	reply, err := do(k, Request{Command: GetTargetVersion, Name: name})
	if err != nil || len(reply.Targets) == 0 {
		return TargetVersion{}, err
	}
	return reply.Targets[0], nil
}

// Targets returns the target types that are loaded now.
func Targets(k Kernel) ([]TargetVersion, error) {
	reply, err := do(k, Request{Command: ListVersions})
	return reply.Targets, err
}

// List returns the devices whose name and UUID begin with the prefixes given;
// empty ones hold for all. Kernels whose interface is older than 4.45 filter
// nothing, so each entry is looked at again here, and tell no UUID, so that a
// UUID prefix finds nothing. The kernel walks all its devices for it with other
// requests waiting, which takes tens of milliseconds at 10 000 devices.
func List(k Kernel, namePrefix, uuidPrefix string) ([]Listed, error) {
	reply, err := do(k, Request{Command: ListDevices, Flags: UUIDFlag, Name: namePrefix, UUID: uuidPrefix})
	if err != nil {
		return nil, err
	}
	var devices []Listed
	for _, d := range reply.Devices {
		if strings.HasPrefix(d.Name, namePrefix) && strings.HasPrefix(d.UUID, uuidPrefix) {
			devices = append(devices, d)
		}
	}
	return devices, nil
}
