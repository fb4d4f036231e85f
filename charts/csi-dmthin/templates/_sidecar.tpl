{{- /* A sidecar of the controller: takes [root, name, its values, port, flags]. */ -}}
{{- define "csi-dmthin.sidecar" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $sidecar := index . 2 -}}
{{- $port := index . 3 -}}
{{- $elects := $root.Values.controller.leaderElection -}}
- name: {{ $name }}
  image: {{ include "csi-dmthin.image" (list $sidecar.image "") }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --http-endpoint=:{{ $port }}
    {{- if $elects }}
    - --leader-election
    {{- end }}
    {{- range index . 4 }}
    - {{ . }}
    {{- end }}
    {{- if eq $root.Values.log.format "json" }}
    - --logging-format=json
    {{- end }}
    - --v={{ $root.Values.log.level }}
    {{- with $sidecar.additionalArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
  ports:
    - name: {{ $name }}
      containerPort: {{ $port }}
  {{- if $elects }}
  livenessProbe:
    httpGet:
      path: /healthz/leader-election
      port: {{ $name }}
    initialDelaySeconds: 10
    periodSeconds: 20
    timeoutSeconds: 10
  {{- end }}
  resources:
    {{- toYaml $sidecar.resources | nindent 4 }}
  securityContext:
    {{- include "csi-dmthin.unprivileged" $root | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: csi
      mountPath: /csi
{{- end }}
