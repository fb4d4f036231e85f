{{- /* Objects are named after the driver, which a cluster has once, whatever the release is called. */ -}}
{{- define "csi-dmthin.fullname" -}}
{{ .Values.fullnameOverride | default "csi-dmthin" }}
{{- end }}

{{- /* What tells the pods of a component from others: takes the component. */ -}}
{{- define "csi-dmthin.selector" -}}
app.kubernetes.io/name: csi-dmthin
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- /* The labels of an object: takes [root, component]. */ -}}
{{- define "csi-dmthin.labels" -}}
{{- $root := index . 0 -}}
{{ include "csi-dmthin.selector" (index . 1) }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The name of an image: takes [its values, the tag that it has otherwise]. */ -}}
{{- define "csi-dmthin.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end }}
{{- end }}

{{- /* What a container may not, that needs nothing. */ -}}
{{- define "csi-dmthin.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Is there anything about snapshots? "" is no. */ -}}
{{- define "csi-dmthin.snapshots" -}}
{{- $enabled := .Values.snapshotter.enabled -}}
{{- if or (eq $enabled "always") (and (eq $enabled "auto") (.Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1")) -}}
yes
{{- end }}
{{- end }}

{{- /* The Secret with a certificate that the controller did not make. "" if it makes its own. */ -}}
{{- define "csi-dmthin.givenSecret" -}}
{{- if .Values.tls.certManager.issuerRef -}}
{{ include "csi-dmthin.fullname" . }}-controller-cert
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end }}
{{- end }}

{{- /* The kinds of nodes, as JSON: those of nodeGroups, or one without a name. */ -}}
{{- define "csi-dmthin.groups" -}}
{{- $pools := .Values.pools | default (dict "default" (dict "loopback" (dict "size" "20Gi"))) -}}
{{- .Values.nodeGroups | default (list (dict "name" "" "pools" $pools "nodes" .Values.nodes)) | toJson -}}
{{- end }}

{{- /* How the objects of a kind of nodes are called: takes [root, group]. */ -}}
{{- define "csi-dmthin.groupName" -}}
{{ include "csi-dmthin.fullname" (index . 0) }}-node{{ with (index . 1).name }}-{{ . }}{{ end }}
{{- end }}
