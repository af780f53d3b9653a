{{- /* Pods run under a user that owns nothing. */ -}}
{{- define "replicator.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- /* A container can do nothing but its work. */ -}}
{{- define "replicator.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- /* Where the program finds its configuration, and where it listens. */ -}}
{{- define "replicator.environment" -}}
env:
  - name: REPLICATOR_CONFIG
    value: /etc/replicator/replicator.yaml
  - name: REPLICATOR_ADMIN__HOST
    # Every address, of IPv6 and IPv4.
    value: "::"
  - name: REPLICATOR_ADMIN__PORT
    value: "9464"
  # Pods do not know each other by name.
  - name: REPLICATOR_ADMIN__ADVERTISE
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  {{- range .Values.env }}
  - {{ toJson . }}
  {{- end }}
{{- end -}}

{{- /* Configuration, secrets and state, where the program looks for them. */ -}}
{{- define "replicator.mounts" -}}
volumeMounts:
  - name: config
    mountPath: /etc/replicator
    readOnly: true
  {{- if .Values.existingSecret }}
  - name: secrets
    mountPath: /run/secrets/replicator
    readOnly: true
  {{- end }}
  {{- if eq (include "replicator.kind" .) "StatefulSet" }}
  - name: state
    mountPath: /var/lib/replicator
  {{- end }}
  {{- range .Values.extraVolumeMounts }}
  - {{ toJson . }}
  {{- end }}
{{- end -}}

{{- /* What is mounted; the volume of a StatefulSet comes from its claim. */ -}}
{{- define "replicator.volumes" -}}
volumes:
  - name: config
    configMap:
      name: {{ include "replicator.name" . }}
  {{- with .Values.existingSecret }}
  - name: secrets
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- range .Values.extraVolumes }}
  - {{ toJson . }}
  {{- end }}
{{- end -}}
