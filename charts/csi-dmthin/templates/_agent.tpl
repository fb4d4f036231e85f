{{- /* The file of the agents of a kind of nodes: takes [root, group]. */ -}}
{{- define "csi-dmthin.agentFile" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- $values := $root.Values -}}
controller: {{ include "csi-dmthin.fullname" $root }}-controller:9443
endpoint: unix://{{ $values.kubeletDir }}/plugins/csi-dmthin.dev/csi.sock
kubelet-dir: {{ $values.kubeletDir }}
log-format: {{ $values.log.format }}
measure-interval: {{ $values.node.measureInterval }}
state-dir: {{ $values.stateDir }}
volume-metrics: {{ $values.node.volumeMetrics }}
pools:
  {{- include "csi-dmthin.pools" $group.pools | nindent 2 }}
{{- with $group.nodes }}
nodes:
  {{- range $name, $node := . }}
  {{ $name | quote }}:
    pools:
      {{- include "csi-dmthin.pools" $node.pools | nindent 6 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Pools as the agent reads them: takes pools as values have them. */ -}}
{{- define "csi-dmthin.pools" -}}
{{- $all := dict -}}
{{- range $name, $pool := . -}}
  {{- $options := deepCopy ($pool.options | default dict) -}}
  {{- with $pool.loopback -}}
    {{- $_ := set $options "loopdatasize" (include "csi-dmthin.size" .size) -}}
    {{- $_ := set $options "preallocate" (ne .preallocate false) -}}
  {{- end -}}
  {{- with $pool.devices -}}
    {{- $_ := set $options "datadev" .data -}}
    {{- $_ := set $options "metadatadev" .metadata -}}
  {{- end -}}
  {{- with $pool.existing -}}
    {{- $_ := set $options "thinpooldev" .thinPool -}}
  {{- end -}}
  {{- with $pool.growTo -}}
    {{- $_ := set $options "grow-to" (include "csi-dmthin.size" .) -}}
  {{- end -}}
  {{- $_ := set $all $name $options -}}
{{- end -}}
{{ toYaml $all }}
{{- end }}

{{- /* A size as Kubernetes writes it, 20Gi, as the agent reads it. */ -}}
{{- define "csi-dmthin.size" -}}
{{ . }}B
{{- end }}
