{{- define "spikeserve.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- $name | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "spikeserve.headless" -}}
{{ include "spikeserve.name" . | trunc 54 | trimSuffix "-" }}-headless
{{- end -}}

{{- define "spikeserve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "spikeserve.labels" -}}
{{ include "spikeserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "spikeserve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* A quantity of memory, such as 1.5Gi, in bytes. */ -}}
{{- define "spikeserve.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf $number (get $units (trimPrefix $number .)) | int64 -}}
{{- end -}}

{{- /* A quantity of CPU, such as 500m or 1.5, in thousandths of a core. */ -}}
{{- define "spikeserve.millicores" -}}
{{- $text := toString . -}}
{{- hasSuffix "m" $text | ternary (trimSuffix "m" $text) (mulf $text 1000) -}}
{{- end -}}

{{- /* --shutdown-seconds, which env may say. */ -}}
{{- define "spikeserve.shutdown" -}}
{{- $seconds := 25 -}}
{{- range .Values.env -}}
{{- if eq .name "SPIKESERVE_SHUTDOWN_SECONDS" -}}
{{- $seconds = .value | default $seconds -}}
{{- end -}}
{{- end -}}
{{- int $seconds -}}
{{- end -}}

{{- /* What a schema cannot say. */ -}}
{{- define "spikeserve.check" -}}
{{- if and .Values.repository.url .Values.repository.claim -}}
{{- fail "repository: url and claim are both set, expected one of them, or neither for the image's own models" -}}
{{- end -}}
{{- if and .Values.repository.cacheClaim (not .Values.repository.url) -}}
{{- fail "repository: cacheClaim is set, which is for the copies of a repository at a url, and there is no url" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling: minReplicas is %v, expected at most maxReplicas, %v" .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if and .Values.grpc.enabled (has (int .Values.grpc.port) (list 8000 (int .Values.service.port))) -}}
{{- fail (printf "grpc: port is %v, expected one that is neither 8000, the pods' for HTTP, nor service.port, %v" .Values.grpc.port .Values.service.port) -}}
{{- end -}}
{{- if eq .Values.image.tag "latest" -}}
{{- fail "image: tag is latest, expected one that always names the same image: a pod that is restarted could be another server" -}}
{{- end -}}
{{- range list "cpu" "memory" -}}
{{- $request := get $.Values.resources.requests . -}}
{{- $limit := get $.Values.resources.limits . -}}
{{- $unit := printf "spikeserve.%s" (eq . "cpu" | ternary "millicores" "bytes") -}}
{{- $most := include $unit $limit | float64 -}}
{{- if or (le $most 0.0) (gt (include $unit $request | float64) $most) -}}
{{- fail (printf "resources: limits.%s is %v, expected more than 0 and at least requests.%s, %v" . $limit . $request) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := include "spikeserve.selector" . | fromYaml -}}
{{- if hasKey $.Values.podLabels $name -}}
{{- fail (printf "podLabels: %s is set, by which the chart finds its pods" $name) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.env -}}
{{- if has .name $names -}}
{{- fail (printf "env: %s is set twice, expected once" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $from := dict "THREADS" "resources.limits.cpu" "MAX_PENDING_BYTES" "resources.limits.memory" "API_KEYS" "keys.secret" "ADMIN_KEYS" "keys.secret" "REPOSITORY" "repository" "REPOSITORY_CACHE" "repository" "POLL_SECONDS" "repository.pollSeconds" "PORT" "service.port" "GRPC_PORT" "grpc.port" -}}
{{- range .Values.env -}}
{{- $setting := trimPrefix "SPIKESERVE_" .name -}}
{{- if and (hasPrefix "SPIKESERVE_" .name) (hasKey $from $setting) -}}
{{- fail (printf "env: %s is set, which the chart sets by the value %s" .name (get $from $setting)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
