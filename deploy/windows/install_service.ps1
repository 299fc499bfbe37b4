<#
.SYNOPSIS
    Runs a bot under cluster-lock as a Windows service, through NSSM (https://nssm.cc).

.DESCRIPTION
    install     makes the service and starts it; run again after a change
    start, stop, restart, status, uninstall

    Why NSSM: a service must answer the service manager, which a Python program does not, and must be stopped by something
    that it hears. NSSM sends Ctrl-C, which the bot takes as its order to hand over. The Task Scheduler ends a task by
    terminating it, so each stop would cost a lease; the Startup folder starts nothing until somebody logs on.

.PARAMETER Root
    The folder of the bot: its modules, config.yaml and venv. The service's working directory.

.PARAMETER App
    The aiogram Dispatcher, MODULE:NAME.

.EXAMPLE
    .\install_service.ps1 install -Root C:\mybot -App mybot.main:dispatcher -TokenFile C:\mybot\telegram_token
#>
[CmdletBinding()]
param(
    [Parameter(Position = 0)]
    [ValidateSet('install', 'start', 'stop', 'restart', 'status', 'uninstall')]
    [string] $Action = 'status',
    [string] $Name = 'cluster-lock-bot',
    [string] $Root = $PWD.Path,
    [string] $App = 'bot.app:dispatcher',
    [string] $Venv = (Join-Path $Root '.venv'),
    [string] $Config = (Join-Path $Root 'config.yaml'),
    [string] $TokenFile = '',
    [string] $Logs = (Join-Path $env:ProgramData "$Name\logs"),
    [string] $State = (Join-Path $env:ProgramData "$Name\state"),
    [string] $Nssm = 'nssm.exe',
    # Above lock.drain + lock.cancel_grace (8 s), with room for the hand-over.
    [ValidateRange(1, 600)]
    [int] $StopSeconds = 20
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

function Invoke-Nssm {
    & $Nssm @args
    if ($LASTEXITCODE -ne 0) {
        throw "nssm $($args[0]) ended with code $LASTEXITCODE"
    }
}

function Test-Administrator {
    $identity = [Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object Security.Principal.WindowsPrincipal($identity)
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

function Test-Service {
    return $null -ne (Get-Service -Name $Name -ErrorAction SilentlyContinue)
}

# For the service's own account and administrators; nobody else, and nothing inherited.
function Protect-Path([string] $Path, [string] $Rights) {
    # (OI)(CI), to what is in it too, means something to folders only.
    $deep = ''
    if (Test-Path -LiteralPath $Path -PathType Container) {
        $deep = '(OI)(CI)'
    }
    $grants = @("BUILTIN\Administrators:${deep}F", "NT AUTHORITY\SYSTEM:${deep}F", "NT SERVICE\${Name}:${deep}${Rights}")
    & icacls.exe $Path /inheritance:r /grant:r $grants | Out-Null
    if ($LASTEXITCODE -ne 0) {
        throw "icacls could not protect $Path"
    }
}

function Install-Bot {
    # The venv's own Python: another one would not find what is installed there.
    $python = Join-Path $Venv 'Scripts\python.exe'
    foreach ($needed in @($python, $Config)) {
        if (-not (Test-Path -LiteralPath $needed -PathType Leaf)) {
            throw "$needed is not there"
        }
    }
    if ($TokenFile -and -not (Test-Path -LiteralPath $TokenFile -PathType Leaf)) {
        throw "$TokenFile is not there: write the bot's token into it"
    }
    New-Item -ItemType Directory -Force -Path $Logs, $State | Out-Null

    if (Test-Service) {
        Stop-Bot
    }
    else {
        Invoke-Nssm install $Name $python
    }
    Invoke-Nssm set $Name Application $python
    Invoke-Nssm set $Name AppDirectory $Root
    Invoke-Nssm set $Name AppParameters "-m cluster_lock.cli bot start --app $App --config `"$Config`""
    Invoke-Nssm set $Name DisplayName $Name
    Invoke-Nssm set $Name Description 'Telegram bot, polled by one server at a time'
    Invoke-Nssm set $Name Start SERVICE_DELAYED_AUTO_START
    # An account that exists for this service alone and has no rights but those given to it.
    # Not by NSSM, whose release 2.24 takes no account without a password.
    & sc.exe config $Name 'obj=' "NT SERVICE\$Name" | Out-Null
    if ($LASTEXITCODE -ne 0) {
        throw "sc.exe could not give the service its account: code $LASTEXITCODE"
    }

    # Where secrets are, never the secrets: anybody who may look at services sees these.
    $variables = @("CLUSTER_LOCK_STATE_DIR=$State", 'PYTHONUNBUFFERED=1', 'PYTHONUTF8=1')
    if ($TokenFile) {
        $variables += "CLUSTER_LOCK_TELEGRAM__TOKEN_FILE=$TokenFile"
        Protect-Path $TokenFile 'R'
    }
    Invoke-Nssm set $Name AppEnvironmentExtra @variables
    Protect-Path $State 'M'
    Protect-Path $Logs 'M'

    Invoke-Nssm set $Name AppStdout (Join-Path $Logs 'bot.log')
    Invoke-Nssm set $Name AppStderr (Join-Path $Logs 'bot.log')
    Invoke-Nssm set $Name AppRotateFiles 1
    Invoke-Nssm set $Name AppRotateOnline 1
    Invoke-Nssm set $Name AppRotateBytes 10485760

    # Ctrl-C, and time to hand over; then, and only then, the hard way, with all that it started.
    Invoke-Nssm set $Name AppNoConsole 0
    Invoke-Nssm set $Name AppStopMethodSkip 0
    Invoke-Nssm set $Name AppStopMethodConsole ($StopSeconds * 1000)
    Invoke-Nssm set $Name AppStopMethodWindow 1000
    Invoke-Nssm set $Name AppStopMethodThreads 1000
    Invoke-Nssm set $Name AppKillProcessTree 1

    # Restarted on failure; not when it was told to end, nor when a person must act (77: rights, 78: configuration).
    Invoke-Nssm set $Name AppExit Default Restart
    foreach ($code in @(0, 77, 78)) {
        Invoke-Nssm set $Name AppExit $code Exit
    }
    Invoke-Nssm set $Name AppRestartDelay 1000
    Invoke-Nssm set $Name AppThrottle 5000

    Start-Bot
}

function Start-Bot {
    Invoke-Nssm start $Name
}

function Stop-Bot {
    $service = Get-Service -Name $Name
    if ($service.Status -ne 'Stopped') {
        Invoke-Nssm stop $Name
        $service.WaitForStatus('Stopped', [TimeSpan]::FromSeconds($StopSeconds + 10))
    }
}

function Uninstall-Bot {
    if (Test-Service) {
        Stop-Bot
        Invoke-Nssm remove $Name confirm
    }
    Write-Output "$Name is removed; $Logs and $State are left"
}

if (-not (Get-Command $Nssm -ErrorAction SilentlyContinue)) {
    throw "$Nssm is not there: install NSSM 2.24 or later, or say where it is with -Nssm"
}
if ($Action -ne 'status' -and -not (Test-Administrator)) {
    throw "$Action needs an administrator's PowerShell"
}
if ($Action -eq 'install') {
    Install-Bot
}
elseif ($Action -eq 'uninstall') {
    Uninstall-Bot
}
elseif (-not (Test-Service)) {
    throw "there is no service $Name"
}
elseif ($Action -eq 'start') {
    Start-Bot
}
elseif ($Action -eq 'stop') {
    Stop-Bot
}
elseif ($Action -eq 'restart') {
    Stop-Bot
    Start-Bot
}
else {
    Get-Service -Name $Name | Select-Object -Property @('Name', 'Status', 'StartType')
}
