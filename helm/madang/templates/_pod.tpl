{{/* What every pod has: who it runs as, and where: (list $ "ranker" $own). */}}
{{- define "madang.podBasics" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
serviceAccountName: {{ include "madang.fullname" $root }}
automountServiceAccountToken: false
{{- /* Or a Service named madang-ranker would set MADANG_RANKER_PORT. */}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- include "madang.pullSecrets" $root }}
{{- with ($own.nodeSelector | default $root.Values.nodeSelector) }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with ($own.tolerations | default $root.Values.tolerations) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with ($own.affinity | default $root.Values.affinity) }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Labels and annotations: (list $ "ranker" $annotations); what a change of rolls the pods is one of them. */}}
{{- define "madang.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "madang.selector" (list $root (index . 1)) | nindent 2 }}
  app.kubernetes.io/part-of: madang
  {{- with $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with (merge (dict) (index . 2) ($root.Values.podAnnotations | default dict)) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Over zones and nodes, as far as there are any. */}}
{{- define "madang.spread" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "madang.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "madang.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Replicas are the autoscaler's, if there is one. */}}
{{- define "madang.scale" -}}
{{- if not .autoscaling.enabled }}
replicas: {{ .replicas }}
{{- end }}
{{- end }}

{{/* The autoscaler and the disruption budget of a Deployment: (list $ "ranker" $own). */}}
{{- define "madang.availability" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- with (index . 2) }}
{{- if .autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "madang.metadata" (list $root $name) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "madang.fullname" $root }}-{{ $name }}
  minReplicas: {{ .autoscaling.minReplicas }}
  maxReplicas: {{ .autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ .autoscaling.targetCPUUtilization }}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
{{- end }}
{{- if .podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "madang.metadata" (list $root $name) | nindent 2 }}
spec:
  maxUnavailable: {{ .podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "madang.selector" (list $root $name) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}
