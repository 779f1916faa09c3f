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
        matchLabels: {kubernetes.io/metadata.name: kube-system}
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
