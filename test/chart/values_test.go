package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
)

// Each is refused, and the message has these words.
var wrongValues = []struct{ name, values, says string }{
	{"a key of the top", `pols: {}`, "'pols' not allowed"},
	{"a key below", `controller: {replica: 2}`, "'replica' not allowed"},
	{"a key of an image", `image: {name: x}`, "at '/image': additional properties 'name' not allowed"},
	{"a key of a sidecar", `resizer: {enabled: false}`, "at '/resizer': additional properties 'enabled' not allowed"},
	{"a key of resources", `node: {resources: {request: {}}}`, "'request' not allowed"},
	{"a key of a toleration", `node: {tolerations: [{operater: Exists}]}`, "'operater' not allowed"},
	{"a key of a class", `storageClasses: [{name: a, fstype: xfs}]`, "at '/storageClasses/0': additional properties 'fstype' not allowed"},
	{"a class without a name", `storageClasses: [{pool: default}]`, "missing property 'name'"},
	{"a file system", `storageClasses: [{name: a, fsType: btrfs}]`, "at '/storageClasses/0/fsType': value must be one of 'ext4', 'xfs'"},
	{"a class's discard", `storageClasses: [{name: a, discard: "true"}]`, "at '/storageClasses/0/discard': got string, want boolean"},
	{"a class's pool that no node has", `storageClasses: [{name: a, pool: fast}]`, "storageClasses: a: no node has a pool fast, but: default"},
	{"the class of a pool that was renamed", `pools: {fast: {loopback: {size: 1Gi}}}`, "storageClasses: csi-dmthin: no node has a pool default, but: fast"},
	{"two classes of one name", `storageClasses: [{name: a}, {name: a}]`, "two are called a"},
	{"a class called as another's twin", `storageClasses: [{name: a-restore, restoreClass: false}, {name: a}]`, "two are called a-restore"},
	{"two defaults", `storageClasses: [{name: a, default: true}, {name: b, default: true}]`, "not each of a, b"},
	{"a pool of no kind", `pools: {default: {}}`, "at '/pools/default'"},
	{"a pool of two kinds", `pools: {default: {loopback: {size: 1Gi}, existing: {thinPool: a}}}`, "at '/pools/default': 'oneOf' failed, subschemas 0, 2 matched"},
	{"a kind of pool that is not", `pools: {default: {loopbak: {size: 1Gi}}}`, "'loopbak' not allowed"},
	{"a pool's name", `pools: {Default: {loopback: {size: 1Gi}}}`, "invalid propertyName 'Default'"},
	{"a file without a size", `pools: {default: {loopback: {}}}`, "at '/pools/default/loopback': missing property 'size'"},
	{"a size in bytes", `pools: {default: {loopback: {size: 1073741824}}}`, "at '/pools/default/loopback/size': got number, want string"},
	{"a decimal size", `pools: {default: {loopback: {size: 20G}}}`, "at '/pools/default/loopback/size': '20G' does not match"},
	{"one disk", `pools: {default: {devices: {data: /dev/sdb}}}`, "at '/pools/default/devices': missing property 'metadata'"},
	{"a disk's name", `pools: {default: {devices: {data: sdb, metadata: /dev/sdc}}}`, "at '/pools/default/devices/data': 'sdb' does not match"},
	{"an option", `pools: {default: {loopback: {size: 1Gi}, options: {overprovision: 2}}}`, "at '/pools/default/options': additional properties 'overprovision' not allowed"},
	{"an option with dm.", `pools: {default: {loopback: {size: 1Gi}, options: {dm.blocksize: 1M}}}`, "'dm.blocksize' not allowed"},
	{"an option that is decided", `pools: {default: {loopback: {size: 1Gi}, options: {lazy_unmount: true}}}`, "'lazy_unmount' not allowed"},
	{"an option's value", `pools: {default: {loopback: {size: 1Gi}, options: {min_free_space: 10}}}`, "at '/pools/default/options/min_free_space': got number, want string"},
	{"a node without pools", `nodes: {worker-1: {pools: {}}}`, "at '/nodes/worker-1/pools'"},
	{"a key of a node", `nodes: {worker-1: {pool: {}}}`, "'pool' not allowed"},
	{"a group without pools", `nodeGroups: [{name: a}]`, "at '/nodeGroups/0': missing property 'pools'"},
	{"a group's name", `nodeGroups: [{name: A, pools: {default: {loopback: {size: 1Gi}}}}]`, "at '/nodeGroups/0/name'"},
	{"pools beside groups", `{pools: {default: {loopback: {size: 1Gi}}}, nodeGroups: [{name: a, pools: {default: {loopback: {size: 1Gi}}}}]}`, "pools: give them in nodeGroups"},
	{"nodes beside groups", `{nodes: {n: {pools: {default: {loopback: {size: 1Gi}}}}}, nodeGroups: [{name: a, pools: {default: {loopback: {size: 1Gi}}}}]}`, "nodes: give them in nodeGroups"},
	{"two groups of one name", `nodeGroups: [{name: a, nodeSelector: {disks: nvme}, pools: {default: {loopback: {size: 1Gi}}}}, {name: a, nodeSelector: {disks: hdd}, pools: {default: {loopback: {size: 1Gi}}}}]`, "nodeGroups: two are called a"},
	{"a group of all nodes beside another", `nodeGroups: [{name: a, pools: {default: {loopback: {size: 1Gi}}}}, {name: b, nodeSelector: {disks: hdd}, pools: {default: {loopback: {size: 1Gi}}}}]`, "nodeGroups: a: with several groups each needs a nodeSelector"},
	{"replicas without election", `controller: {leaderElection: false}`, "controller.replicas: without controller.leaderElection there can be one only"},
	{"no replicas", `controller: {replicas: 0}`, "at '/controller/replicas': minimum: got 0, want 1"},
	{"two certificates", `tls: {existingSecret: a, certManager: {issuerRef: {name: b}}}`, "tls: give certManager.issuerRef or existingSecret, not both"},
	{"a key of an issuer", `tls: {certManager: {issuerRef: {namespace: a}}}`, "'namespace' not allowed"},
	{"whether snapshots", `snapshotter: {enabled: true}`, "at '/snapshotter/enabled'"},
	{"kubelet's directory", `kubeletDir: var/lib/kubelet`, "at '/kubeletDir'"},
	{"kubelet's directory with an end", `kubeletDir: /var/lib/kubelet/`, "at '/kubeletDir'"},
	{"a state directory of dots", `stateDir: /var/../etc`, "at '/stateDir'"},
	{"a format of logs", `log: {format: yaml}`, "at '/log/format'"},
	{"a level of logs", `log: {level: high}`, "at '/log/level': got string, want integer"},
	{"an interval", `node: {measureInterval: 10}`, "at '/node/measureInterval'"},
	{"how many at a time", `node: {maxUnavailable: 0}`, "at '/node/maxUnavailable'"},
	{"an argument", `node: {additionalArgs: [pprof]}`, "at '/node/additionalArgs/0'"},
	{"a digest", `image: {digest: latest}`, "at '/image/digest'"},
	{"who reads metrics", `networkPolicy: {metricsFrom: [{namespace: monitoring}]}`, "'namespace' not allowed"},
}

func TestWrongValuesAreRefusedByName(t *testing.T) {
	for _, wrong := range wrongValues {
		t.Run(wrong.name, func(t *testing.T) {
			_, err := usual.render(t, parseValues(t, wrong.values))
			if err == nil || !strings.Contains(err.Error(), wrong.says) {
				t.Errorf("%s: have %v, want an error that says %q", wrong.values, err, wrong.says)
			}
		})
	}
}

func TestLint(t *testing.T) {
	kubernetes, err := common.ParseKubeVersion("v1.37.2")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range valueFiles(t) {
		lint := action.Lint{Strict: true, Namespace: "csi-dmthin", KubeVersion: kubernetes}
		result := lint.Run([]string{chartDir}, readValues(t, file))
		if len(result.Errors) > 0 || action.HasWarningsOrErrors(result) {
			t.Errorf("%s: %v %v", file, result.Errors, result.Messages)
		}
	}
}

// A valuesSchema is what is used here of one.
type valuesSchema struct {
	Ref                  string                   `json:"$ref"`
	Description          string                   `json:"description"`
	Type                 any                      `json:"type"`
	Properties           map[string]*valuesSchema `json:"properties"`
	AdditionalProperties any                      `json:"additionalProperties"`
	Items                *valuesSchema            `json:"items"`
	AllOf                []*valuesSchema          `json:"allOf"`
	Enum                 []any                    `json:"enum"`
	Default              any                      `json:"default"`
	Definitions          map[string]*valuesSchema `json:"definitions"`
}

func readSchema(t *testing.T) *valuesSchema {
	t.Helper()
	var s valuesSchema
	if err := json.Unmarshal([]byte(readText(t, chartDir+"/values.schema.json")), &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// resolve follows references. The description that comes first counts.
func (s *valuesSchema) resolve(all *valuesSchema) valuesSchema {
	resolved := *s
	for resolved.Ref != "" || len(resolved.AllOf) == 1 {
		next := resolved.Ref
		if next == "" {
			next = resolved.AllOf[0].Ref
		}
		description := resolved.Description
		resolved = *all.Definitions[strings.TrimPrefix(next, "#/definitions/")]
		if description != "" {
			resolved.Description = description
		}
	}
	return resolved
}

// walk calls visit for each schema below s, and for each once.
func (s *valuesSchema) walk(path string, visit func(path string, s *valuesSchema)) {
	visit(path, s)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		s.Properties[name].walk(path+"."+name, visit)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Definitions)) {
		s.Definitions[name].walk(name+":", visit)
	}
	if s.Items != nil {
		s.Items.walk(path+"[]", visit)
	}
}

// Each key is described, and where keys are listed no other is taken.
func TestSchemaIsClosedAndSpeaks(t *testing.T) {
	readSchema(t).walk("", func(path string, s *valuesSchema) {
		if path != "" && s.Description == "" && !strings.HasSuffix(path, "[]") {
			t.Errorf("%s has no description", path)
		}
		if len(s.Properties) > 0 && s.AdditionalProperties != false {
			t.Errorf("%s takes keys that are not listed", path)
		}
	})
}

// Each value that values.yaml has is in the schema, and the reverse, so that values.yaml can be read as the list.
func TestValuesFileHasAllKeys(t *testing.T) {
	all := readSchema(t)
	var compare func(path string, s valuesSchema, have map[string]any)
	compare = func(path string, s valuesSchema, have map[string]any) {
		for name, property := range s.Properties {
			value, there := have[name]
			if !there {
				t.Errorf("values.yaml has no %s%s", path, name)
				continue
			}
			if below, ok := value.(map[string]any); ok && len(below) > 0 {
				compare(path+name+".", property.resolve(all), below)
			}
		}
	}
	top := *all
	top.Properties = maps.Clone(all.Properties)
	delete(top.Properties, "global") // Helm's own
	delete(top.Properties, "enabled")
	values := readValues(t, chartDir+"/values.yaml")
	for _, component := range []string{"controller", "node", "provisioner", "snapshotter", "resizer"} {
		resources := values[component].(map[string]any)["resources"].(map[string]any)
		if resources["limits"] == nil {
			resources["limits"] = map[string]any{} // is left away on purpose
		}
	}
	compare("", top, values)
}

// notInValues are options of a device set that are no values, and why.
var notInValues = map[string]string{
	"datadev": "devices.data", "metadatadev": "devices.metadata", "thinpooldev": "existing.thinPool",
	"loopdatasize": "loopback.size", "preallocate": "loopback.preallocate",
	"use_deferred_deletion": "decided by the driver", "lazy_unmount": "decided by the driver",
	"basesize": "of the base device, which volumes do not have", "fs": "of the base device, which volumes do not have",
	"override_udev_sync_check": "without effect", "libdm_log_level": "without effect", "test": "without effect",
	"directlvm_device": "refused", "directlvm_device_force": "refused", "thinp_percent": "refused", "thinp_metapercent": "refused",
	"thinp_autoextend_threshold": "refused", "thinp_autoextend_percent": "refused", "metadata_size": "refused", "metadatasize": "refused",
}

// The options of a pool are those that docs/options.md has.
func TestOptionsAreTheDeviceSets(t *testing.T) {
	_, table, _ := strings.Cut(readText(t, root+"/docs/options.md"), "<!-- begin options -->")
	table, _, _ = strings.Cut(table, "<!-- end options -->")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(?:dm\\.)?([a-z_]+)`").FindAllStringSubmatch(table, -1) {
		documented[row[1]] = true
	}
	if len(documented) < 20 {
		t.Fatalf("found only %v", documented)
	}
	options := readSchema(t).Definitions["pool"].Properties["options"].Properties
	for option := range documented {
		if options[option] == nil && notInValues[option] == "" {
			t.Errorf("docs/options.md has the option %s: add it to values.schema.json, or to notInValues with a reason", option)
		}
	}
	for option := range options {
		if !documented[option] {
			t.Errorf("values.schema.json has the option %s, which docs/options.md has not", option)
		}
	}
}

// The table of the chart's README is made from the schema and values.yaml.
func TestReadmeTable(t *testing.T) {
	all := readSchema(t)
	values := readValues(t, chartDir+"/values.yaml")
	var rows strings.Builder
	var list func(path string, s valuesSchema, have any)
	list = func(path string, s valuesSchema, have any) {
		below, isMap := have.(map[string]any)
		if isMap && len(below) > 0 && len(s.Properties) > 0 && !strings.HasSuffix(path, ".resources") {
			for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
				list(path+"."+name, s.Properties[name].resolve(all), below[name])
			}
			return
		}
		text, err := json.Marshal(have)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&rows, "| `%s` | `%s` | %s |\n", strings.TrimPrefix(path, "."), text, s.Description)
	}
	for _, name := range slices.Sorted(maps.Keys(all.Properties)) {
		if name != "global" && name != "enabled" {
			list("."+name, all.Properties[name].resolve(all), values[name])
		}
	}
	const begin, end = "<!-- begin values -->\n", "<!-- end values -->"
	before, rest, _ := strings.Cut(readText(t, chartDir+"/README.md"), begin)
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatal("README.md has no place for the table")
	}
	mustBe(t, chartDir+"/README.md", before+begin+"| value | default | |\n|---|---|---|\n"+rows.String()+end+after)
}
