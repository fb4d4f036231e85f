package chart

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// An agentFile is what the agent's file may have.
type agentFile struct {
	Controller      string             `json:"controller"`
	Endpoint        string             `json:"endpoint"`
	KubeletDir      string             `json:"kubelet-dir"`
	LogFormat       string             `json:"log-format"`
	MeasureInterval string             `json:"measure-interval"`
	StateDir        string             `json:"state-dir"`
	VolumeMetrics   *bool              `json:"volume-metrics"`
	Pools           agentPools         `json:"pools"`
	Nodes           map[string]agentOf `json:"nodes"`
}

type agentOf struct {
	Pools agentPools `json:"pools"`
}

type agentPools map[string]map[string]any

// checkAgentFile reads a file as the agent does, and has the device set read the options.
func checkAgentFile(t *testing.T, c *corev1.ConfigMap) (file agentFile) {
	t.Helper()
	if keys := slices.Collect(maps.Keys(c.Data)); len(keys) != 1 || keys[0] != "config.yaml" {
		t.Fatalf("the ConfigMap %s has %q", c.Name, keys)
	}
	if err := yaml.UnmarshalStrict([]byte(c.Data["config.yaml"]), &file); err != nil {
		t.Fatalf("%s: %v in\n%s", c.Name, err, c.Data["config.yaml"])
	}
	if len(file.Pools) == 0 {
		t.Errorf("%s: no pools: the agent would make one", c.Name)
	}
	if _, err := time.ParseDuration(file.MeasureInterval); file.MeasureInterval != "" && err != nil {
		t.Error(err)
	}
	checkPools(t, file.Pools)
	for _, node := range file.Nodes {
		checkPools(t, node.Pools)
	}
	return file
}

func checkPools(t *testing.T, pools agentPools) {
	t.Helper()
	for name, options := range pools {
		var words []string
		for key, value := range options {
			text := fmt.Sprint(value)
			if number, ok := value.(float64); ok {
				text = strconv.FormatFloat(number, 'f', -1, 64)
			}
			if key == "grow-to" {
				if _, err := deviceset.ParseSize(text); err != nil {
					t.Errorf("pool %s: grow-to %s: %v", name, text, err)
				}
				continue
			}
			words = append(words, "dm."+key+"="+text)
		}
		if _, _, err := deviceset.ParseOptions(words); err != nil {
			t.Errorf("pool %s: %v", name, err)
		}
	}
}
