{{- define "ssasr.selector" -}}
app.kubernetes.io/name: ssasr
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ssasr.labels" -}}
{{ include "ssasr.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Where nginx finds the engines of one model: the full name, for it knows no search domains. */}}
{{- define "ssasr.engineAddress" -}}
{{- if (index .root.Values.engines .engine).enabled -}}
{{ .root.Release.Name }}-{{ .engine }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.lb.clusterDomain }}:50051
{{- else -}}
127.0.0.1:1
{{- end -}}
{{- end }}

{{/* Service links would put SSASR_… variables of Kubernetes' own making into the environment, and
     ssasr refuses to start with variables that mean nothing. */}}
{{- define "ssasr.pod" -}}
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ssasr.tracing" -}}
{{- with .Values.tracing.endpoint }}
- {name: SSASR_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "ssasr.nameServer" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace }}}
      {{- with .Values.networkPolicy.dnsPodLabels }}
      podSelector:
        matchLabels: {{ toYaml . | nindent 10 }}
      {{- end }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* The one way out there may be, and only if somebody asked for it. */}}
{{- define "ssasr.collector" -}}
{{- if and .Values.tracing.endpoint .Values.tracing.namespace -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.tracing.namespace }}}
{{- end }}
{{- end }}

{{- define "ssasr.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* An image: its own tag or digest, or else the chart's version; never "latest". */}}
{{- define "ssasr.image" -}}
{{- $last := last (splitList "/" .image) -}}
{{- if or (contains ":" $last) (contains "@" .image) -}}
{{ .image }}
{{- else -}}
{{ .image }}:{{ .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What every workload may be given, wherever its pods are to run. */}}
{{- define "ssasr.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- end }}

{{- define "ssasr.spread" -}}
topologySpreadConstraints:
{{- if .own.topologySpreadConstraints }}
{{- toYaml .own.topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "ssasr.selector" .scope | nindent 8 }}
{{- end }}
{{- end }}

{{/* The models that a gateway offers, and is ready only with. */}}
{{- define "ssasr.engineList" -}}
{{- $enabled := list -}}
{{- range $engine, $own := .Values.engines -}}
{{- if $own.enabled }}{{ $enabled = append $enabled $engine }}{{ end -}}
{{- end -}}
{{ join "," $enabled }}
{{- end }}
