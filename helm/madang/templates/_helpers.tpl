{{/* The release's name in front of everything; "madang" alone for a release of that name. */}}
{{- define "madang.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What tells one component's pods from others': (list $ "ranker"). */}}
{{- define "madang.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "madang.labels" -}}
{{- $root := index . 0 -}}
{{ include "madang.selector" . }}
app.kubernetes.io/part-of: madang
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* Name, namespace and labels of an object: (list $ "ranker"), or (list $ "ranker" "name"). */}}
{{- define "madang.metadata" -}}
{{- $root := index . 0 -}}
name: {{ if gt (len .) 2 }}{{ index . 2 }}{{ else }}{{ include "madang.fullname" $root }}-{{ index . 1 }}{{ end }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "madang.labels" (list $root (index . 1)) | nindent 2 }}
{{- end }}

{{/* An image of ours: (list $ "madang-ranker"). */}}
{{- define "madang.image" -}}
{{- $root := index . 0 -}}
{{- $registry := ($root.Values.global | default dict).imageRegistry | default $root.Values.image.registry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- define "madang.pullSecrets" -}}
{{- with ((.Values.global | default dict).imagePullSecrets | default .Values.image.pullSecrets) }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The name of one of our Services, from any namespace: (list $ "ranker"). With the dot at its end no
     search domain is tried, which costs lookups, and everything where one of them does not answer. */}}
{{- define "madang.host" -}}
{{- $root := index . 0 -}}
{{ include "madang.fullname" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}.
{{- end }}

{{- define "madang.gateway" -}}
{{ include "madang.host" (list . "mesh") }}:8080
{{- end }}

{{- define "madang.storeUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "madang.host" (list . "valkey") }}:6379
{{- else -}}
{{ required "externalStore.url must be set when valkey.enabled is false, such as redis://store.example.com:6379" .Values.externalStore.url }}
{{- end }}
{{- end }}

{{/* Where documents are searched; "" is in the memory of search's replicas. */}}
{{- define "madang.milvusUrl" -}}
{{- if .Values.milvus.enabled -}}
http://{{ include "madang.host" (list . "milvus") }}:19530
{{- else -}}
{{ .Values.externalMilvus.url }}
{{- end }}
{{- end }}

{{/* The components that there are, with spaces between: the feeder only feeds Milvus. */}}
{{- define "madang.componentNames" -}}
{{- $names := keys .Values.components | sortAlpha -}}
{{- if not (include "madang.milvusUrl" .) }}{{ $names = without $names "feeder" }}{{ end -}}
{{ join " " $names }}
{{- end }}

{{/* The secret of the store's password, "" for none. */}}
{{- define "madang.storeSecret" -}}
{{- if .Values.valkey.enabled }}{{ .Values.valkey.auth.existingSecret }}{{ else }}{{ .Values.externalStore.existingSecret }}{{ end }}
{{- end }}

{{- define "madang.storeSecretKey" -}}
{{- if .Values.valkey.enabled }}{{ .Values.valkey.auth.secretKey }}{{ else }}{{ .Values.externalStore.secretKey }}{{ end }}
{{- end }}

{{/* Whether an acknowledged write needs WAITAOF to be on disk. */}}
{{- define "madang.storeSynced" -}}
{{- if .Values.valkey.enabled }}{{ ne .Values.valkey.appendfsync "always" }}{{ else }}{{ .Values.externalStore.waitForDisk }}{{ end }}
{{- end }}

{{- define "madang.otlp" -}}
{{- if .Values.telemetry.otlpEndpoint -}}
{{ .Values.telemetry.otlpEndpoint }}
{{- else if .Values.jaeger.enabled -}}
{{ include "madang.host" (list . "jaeger") }}:4317
{{- end }}
{{- end }}

{{/* The folder or bucket of models. */}}
{{- define "madang.registry" -}}
{{ .Values.modelRegistry.url | default "file:///models" }}
{{- end }}

{{- define "madang.registryClaim" -}}
{{- if not .Values.modelRegistry.url -}}
{{ .Values.modelRegistry.persistence.existingClaim | default (printf "%s-models" (include "madang.fullname" .)) }}
{{- end }}
{{- end }}

{{/* What reaches an S3-compatible registry. */}}
{{- define "madang.registryEnv" -}}
{{- with .Values.modelRegistry.endpointUrl }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.modelRegistry.region }}
- name: AWS_DEFAULT_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.modelRegistry.existingSecret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.modelRegistry.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "madang.tlsSecret" -}}
{{- with .Values.gateway.tls }}
{{- if .certManager.enabled }}{{ include "madang.fullname" $ }}-edge-tls
{{- else }}{{ required "gateway.tls.existingSecret must name a Secret of type kubernetes.io/tls, or gateway.tls.certManager.enabled be true" .existingSecret }}
{{- end }}
{{- end }}
{{- end }}
