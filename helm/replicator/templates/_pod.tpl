{{- /* What runs in each pod, of a Deployment or a StatefulSet. */ -}}
{{- define "replicator.pod" -}}
serviceAccountName: {{ include "replicator.serviceAccount" . }}
# The program does not talk to Kubernetes; roles for service accounts bring a token of their own.
automountServiceAccountToken: false
# The variables of a service called "replicator" would be taken for settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "replicator.grace" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toPrettyJson . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- include "replicator.podSecurity" . | nindent 0 }}
containers:
  - name: replicator
    image: {{ include "replicator.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [run, --workers, {{ .Values.workers | int64 | quote }}]
    {{- include "replicator.environment" . | nindent 4 }}
    ports:
      - name: admin
        containerPort: 9464
      {{- range include "replicator.adminPorts" . | fromJsonArray | rest }}
      - name: {{ . }}
        containerPort: {{ include "replicator.portNumber" . }}
      {{- end }}
    startupProbe:
      httpGet: {path: /healthz, port: admin}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /healthz, port: admin}
      periodSeconds: 10
      timeoutSeconds: 3
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      periodSeconds: 5
      timeoutSeconds: 3
    resources:
      {{- toPrettyJson .Values.resources | nindent 6 }}
    {{- include "replicator.containerSecurity" . | nindent 4 }}
    {{- include "replicator.mounts" . | nindent 4 }}
{{- include "replicator.volumes" . | nindent 0 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toPrettyJson . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toPrettyJson . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toPrettyJson . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if .Values.topologySpreadConstraints }}
  {{- toPrettyJson .Values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "replicator.selector" $ | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end -}}
