{{- define "replicator.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "replicator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* A pod of a test has them without being selected as a worker. */ -}}
{{- define "replicator.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "replicator.labels" -}}
{{ include "replicator.selector" . }}
{{ include "replicator.commonLabels" . }}
{{- end -}}

{{- /* The names of the ports of all workers of a pod, as JSON. */ -}}
{{- define "replicator.adminPorts" -}}
{{- $names := list "admin" -}}
{{- range $worker := untilStep 1 (int .Values.workers) 1 -}}
{{- $names = append $names (printf "admin-%d" $worker) -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- /* The port that such a name stands for. */ -}}
{{- define "replicator.portNumber" -}}
{{- add 9464 (trimPrefix "admin" . | trimPrefix "-" | default "0" | int64) -}}
{{- end -}}

{{- define "replicator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "replicator.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "replicator.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* The content of replicator.yaml. JSON is YAML too, and has no 2e+06 in the place of 2000000, as toYaml of some Helm
     releases has. A text is taken as it is. */ -}}
{{- define "replicator.config" -}}
{{- if not .Values.config -}}
{{- fail "config is empty: give it the content of replicator.yaml (ci/example-values.yaml is an example)" -}}
{{- end -}}
{{- if kindIs "string" .Values.config -}}
{{- .Values.config -}}
{{- else -}}
{{- include "replicator.exact" (dict "path" "config" "value" .Values.config) -}}
{{- toPrettyJson .Values.config -}}
{{- end -}}
{{- end -}}

{{- /* The configuration as an object, also where it is given as a text; as JSON. */ -}}
{{- define "replicator.parsed" -}}
{{- $config := .Values.config | default dict -}}
{{- if kindIs "string" $config -}}
{{- $config = fromYaml $config -}}
{{- with $config.Error -}}
{{- fail (printf "config is no YAML: %s" .) -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- /* The part of the configuration of which a change rolls the pods: the rest is what a daemon takes up by itself. */ -}}
{{- define "replicator.restarting" -}}
{{- if .Values.hotReload -}}
{{- $kept := omit (include "replicator.parsed" . | fromJson) "rules" -}}
{{- $_ := set $kept "log" (omit ($kept.log | default dict) "level" "format") -}}
{{- with ($kept.admin).api -}}
{{- $_ := set $kept.admin "api" (omit . "tokens" "hosts" "read_without_token") -}}
{{- end -}}
{{- toJson $kept -}}
{{- else -}}
{{- include "replicator.config" . -}}
{{- end -}}
{{- end -}}

{{- /* Nothing, or the end: Helm reads numbers as floating point, and one this great may have lost digits already. */ -}}
{{- define "replicator.exact" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- include "replicator.exact" (dict "path" (printf "%s.%s" $path $key) "value" $value) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $index, $value := .value -}}
{{- include "replicator.exact" (dict "path" (printf "%s[%d]" $path $index) "value" $value) -}}
{{- end -}}
{{- else if kindIs "float64" .value -}}
{{- if or (ge .value 9007199254740992.0) (le .value -9007199254740992.0) -}}
{{- fail (printf "%s is a number of more than 53 bits, which Helm does not keep exactly: give config as text, with --set-file config=replicator.yaml" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Seconds of a duration as the configuration writes it, rounded up. */ -}}
{{- define "replicator.seconds" -}}
{{- if kindIs "string" . -}}
{{- $text := . | replace " " "" -}}
{{- $total := 0.0 -}}
{{- range $part := regexFindAll "[0-9]+([.][0-9]+)?(ms|s|m|h|d)?" $text -1 -}}
{{- $unit := regexFind "[a-z]+$" $part | default "s" -}}
{{- $seconds := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit -}}
{{- $total = addf $total (mulf (float64 (trimSuffix $unit $part)) $seconds) -}}
{{- end -}}
{{- ceil $total | int64 -}}
{{- else -}}
{{- ceil . | int64 -}}
{{- end -}}
{{- end -}}

{{- /* A pod that is killed before the drain is over has not saved its checkpoints. A parent of several workers waits 15
     seconds longer than they drain before it kills them. */ -}}
{{- define "replicator.grace" -}}
{{- $config := include "replicator.parsed" . | fromJson -}}
{{- $drain := include "replicator.seconds" ($config.drain | default "20s") | int64 -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add $drain 25 -}}
{{- else -}}
{{- $grace := .Values.terminationGracePeriodSeconds | int64 -}}
{{- if le $grace $drain -}}
{{- fail (printf "terminationGracePeriodSeconds (%d) must be longer than config.drain (%d s), or pods are killed before they saved their checkpoints" $grace $drain) -}}
{{- end -}}
{{- $grace -}}
{{- end -}}
{{- end -}}

{{- /* StatefulSet where files are kept, else Deployment. A file in no volume would stop every pod at its first conflict. */ -}}
{{- define "replicator.kind" -}}
{{- $config := include "replicator.parsed" . | fromJson -}}
{{- $file := ($config.conflicts).file | default "" -}}
{{- $mounted := false -}}
{{- range .Values.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (.mountPath | trimSuffix "/")) $file -}}
{{- $mounted = true -}}
{{- end -}}
{{- end -}}
{{- $state := hasPrefix "/var/lib/replicator/" $file -}}
{{- $kept := .Values.persistence.enabled -}}
{{- if kindIs "invalid" $kept -}}
{{- $kept = and $state (not $mounted) -}}
{{- end -}}
{{- if and $file (not $mounted) (not (and $kept $state)) -}}
{{- fail (printf "config.conflicts.file (%s) is in no volume, and nothing else in the container is writable: name a file under /var/lib/replicator and leave persistence.enabled empty, or mount a volume there with extraVolumes and extraVolumeMounts" $file) -}}
{{- end -}}
{{- ternary "StatefulSet" "Deployment" $kept -}}
{{- end -}}

{{- /* The ports of the caches: those that are said, else those in the URLs of `config.caches`; as JSON. */ -}}
{{- define "replicator.cachePorts" -}}
{{- $ports := .Values.networkPolicy.cachePorts -}}
{{- if not $ports -}}
{{- range (include "replicator.parsed" . | fromJson).caches -}}
{{- range $node := regexReplaceAll "^[^:]*://([^@/]*@)?([^/?]*).*$" .url "${2}" | splitList "," -}}
{{- if not (hasPrefix "unix:" $node) -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $node | trimPrefix ":" | default "6379" | int64) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end -}}
