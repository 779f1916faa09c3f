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
{{- with .root.Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The sets of engines that there are to be, whole: what a further set does not say is as in the set
     that is called as the model it serves. */}}
{{- define "ssasr.engineSets" -}}
{{- $sets := dict -}}
{{- range $name, $given := .Values.engines -}}
{{- $serves := $given.serves | default $name -}}
{{- if not (has $serves (list "english" "multilingual")) -}}
{{- fail (printf "engines.%s.serves: english or multilingual" $name) -}}
{{- end -}}
{{- $own := deepCopy (get $.Values.engines $serves) -}}
{{- range $key, $value := $given }}{{ $_ := set $own $key $value }}{{ end -}}
{{- $_ := set $own "serves" $serves -}}
{{- if $own.enabled }}{{ $_ := set $sets $name $own }}{{ end -}}
{{- end -}}
{{ $sets | toYaml }}
{{- end }}

{{/* Where nginx finds the engines of one model: the full names, for it knows no search domains. */}}
{{- define "ssasr.engineAddress" -}}
{{- $found := list -}}
{{- range $name, $own := (include "ssasr.engineSets" .root | fromYaml) -}}
{{- if eq $own.serves $.engine -}}
{{- $found = append $found (printf "%s-%s.%s.svc.%s:50051" $.root.Release.Name $name $.root.Release.Namespace $.root.Values.lb.clusterDomain) -}}
{{- end -}}
{{- end -}}
{{ join " " $found | default "127.0.0.1:1" }}
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

{{/* Whoever may read metrics, and nothing else. */}}
{{- define "ssasr.metricsReaders" -}}
{{- with .Values.networkPolicy.metricsNamespace -}}
- from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ . }}}
  ports:
    - {port: metrics}
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

{{- define "ssasr.engineSecret" -}}
{{- if .Values.engineSecret }}
- {name: SSASR_ENGINE_SECRET_FILE, value: /etc/ssasr/engines/secret}
{{- end }}
{{- end }}

{{- define "ssasr.engineSecretMount" -}}
{{- if .Values.engineSecret }}
- {name: engine-secret, mountPath: /etc/ssasr/engines, readOnly: true}
{{- end }}
{{- end }}

{{- define "ssasr.engineSecretVolume" -}}
{{- with .Values.engineSecret }}
- name: engine-secret
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{- define "ssasr.container" -}}
securityContext: {{ toYaml .Values.containerSecurityContext | nindent 2 }}
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

{{/* What a gateway would not start with, or would have no effect. */}}
{{- define "ssasr.refuse" -}}
{{- $several := or (gt (int .replicas) 1) .autoscaling.enabled -}}
{{- range list
  (list (and .webhooks.existingClaim $several) "webhooks.existingClaim is for one gateway: replicas 1, without autoscaling")
  (list (and .webhooks.existingClaim (not .webhooks.hosts)) "webhooks.existingClaim needs webhooks.hosts")
  (list (and .maxConnectionsPerAddress (gt (int .workers) 1)) "maxConnectionsPerAddress counts in one process: workers 1")
  (list (and .asrCaSecret (not (hasPrefix "wss:" .asrEndpoint))) "asrCaSecret needs asrEndpoint, wss://HOST:PORT")
  (list (and .usage.pushUrl (not .usage.existingClaim)) "usage.pushUrl needs usage.existingClaim: the records wait there")
  (list (and .usage.pushTokenSecret (not .usage.pushUrl)) "usage.pushTokenSecret needs usage.pushUrl")
  (list (and .llm.keySecret (not .llm.url)) "llm.keySecret needs llm.url")
  (list (and .redaction.model (not .redaction.enabled)) "redaction.model needs redaction.enabled")
-}}
{{- if first . }}{{ fail (printf "gateway.%s" (last .)) }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "ssasr.aliases" -}}
{{- $pairs := list -}}
{{- range $name, $model := .speechModelAliases }}{{ $pairs = append $pairs (printf "%s=%s" $name $model) }}{{ end -}}
{{ join "," $pairs }}
{{- end }}

{{/* The models that a gateway offers, and is ready only with. */}}
{{- define "ssasr.engineList" -}}
{{- $served := list -}}
{{- range $name, $own := (include "ssasr.engineSets" . | fromYaml) -}}
{{- $served = append $served $own.serves -}}
{{- end -}}
{{ $served | uniq | sortAlpha | join "," }}
{{- end }}
