{{/* The environment of a service: what the chart knows, then the component's own settings, which
     win. A name is that of a field of the service's settings.py. (list $ "ranker" $own) */}}
{{- define "madang.environment" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $own := index . 2 -}}
{{- $prefix := printf "MADANG_%s_" (upper $name) -}}
{{- $settings := dict
  "host" "0.0.0.0"
  "port" 50051
  "health_port" 8081
  "metrics_port" 9090
  "gateway" (include "madang.gateway" $root)
  "model_registry" (include "madang.registry" $root)
  "otlp_endpoint" (include "madang.otlp" $root)
  "sampling_ratio" $root.Values.telemetry.samplingRatio
  "drain_seconds" $root.Values.shutdown.drainSeconds
  "grace_seconds" $root.Values.shutdown.graceSeconds
-}}
{{- $store := "log" -}}
{{- if eq $name "featurestore" }}{{ $store = "store" }}{{ else if eq $name "refresher" }}{{ $store = "" }}{{ else }}{{ $_ := set $settings "log_synced" (eq "true" (include "madang.storeSynced" $root)) }}{{ end -}}
{{- if $store }}{{ $_ := set $settings (printf "%s_url" $store) (include "madang.storeUrl" $root) }}{{ end -}}
{{- if has $name (list "candidate" "consumer") }}{{ $_ := set $settings "segments" $root.Values.segments }}{{ end -}}
{{- if and $root.Values.surfaces (has $name (list "ranker" "consumer")) }}{{ $_ := set $settings "surfaces" "/etc/madang/surfaces.yaml" }}{{ end -}}
{{- if and $root.Values.etaServices (has $name (list "eta" "refresher")) }}{{ $_ := set $settings "services" "/etc/madang/eta-services.yaml" }}{{ end -}}
{{- if and $root.Values.targetingCaps (eq $name "targeting") }}{{ $_ := set $settings "caps" "/etc/madang/targeting-caps.yaml" }}{{ end -}}
{{- $milvus := and (has $name (list "search" "feeder")) (include "madang.milvusUrl" $root) -}}
{{- if $milvus }}{{ $_ := set $settings "milvus_url" $milvus }}{{ end -}}
{{- if and $milvus (eq $name "search") }}{{ $_ := set $settings "index" "milvus" }}{{ end -}}
{{- range $key, $value := mergeOverwrite $settings ($own.settings | default dict) }}
- name: {{ $prefix }}{{ upper $key }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- with (and $store (include "madang.storeSecret" $root)) }}
- name: {{ $prefix }}{{ upper $store }}_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ include "madang.storeSecretKey" $root }}
{{- end }}
{{- with (and $milvus (not $root.Values.milvus.enabled) $root.Values.externalMilvus.existingSecret) }}
- name: {{ $prefix }}MILVUS_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $root.Values.externalMilvus.secretKey }}
{{- end }}
{{- include "madang.registryEnv" $root }}
{{- $theirs := list }}
{{- range $own.extraEnv }}{{ $theirs = append $theirs .name }}{{ end }}
{{- range list "OMP_NUM_THREADS" "POLARS_MAX_THREADS" }}
{{- if not (has . $theirs) }}
- name: {{ . }}
  value: "1"
{{- end }}
{{- end }}
{{- end }}
