{{/* The release's name, with the chart's where that says more. */}}
{{- define "traitroute.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "traitroute.labels" -}}
app.kubernetes.io/name: traitroute
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Of (dict "root" . "part" "server"): what pods are found by; it never changes. */}}
{{- define "traitroute.selector" -}}
app.kubernetes.io/name: traitroute
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{/* Of (dict "root" . "image" .Values.image.server). */}}
{{- define "traitroute.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What all pods have: no rights, and nothing of the Kubernetes API. */}}
{{- define "traitroute.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # Else all files of a large volume would be gone through at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "traitroute.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Of (dict "name" … "from" .Values.apiKey): an environment variable out of a Secret. */}}
{{- define "traitroute.secret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .from.secret }}
      key: {{ .from.key }}
{{- end -}}

{{/* What is written goes to these. */}}
{{- define "traitroute.scratch.mounts" -}}
- name: cache
  mountPath: /cache
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "traitroute.scratch.volumes" -}}
- name: cache
{{- if .Values.modelCache.claim }}
  persistentVolumeClaim:
    claimName: {{ .Values.modelCache.claim }}
{{- else }}
  emptyDir: {}
{{- end }}
- name: tmp
  emptyDir: {}
{{- end -}}

{{/* What servers and the worker need of the Hub. */}}
{{- define "traitroute.hub" -}}
{{- if .Values.hubToken.secret }}
{{ include "traitroute.secret" (dict "name" "HF_TOKEN" "from" .Values.hubToken) }}
{{- end }}
{{- if .Values.modelCache.offline }}
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}
{{- end -}}
