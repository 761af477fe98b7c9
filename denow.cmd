@echo off
rem denow ARGS... is "deno ARGS...", also where there is no Deno yet: it is put into .deno\ beside this file.
setlocal
set "version=2.9.6"
set "root=%~dp0"

call :find && goto found
if not exist "%root%.deno" mkdir "%root%.deno"
echo denow: installing Deno %version% into %root%.deno>&2
where npm >nul 2>nul && call npm install --prefix "%root%.deno" --ignore-scripts --no-audit --no-fund --no-update-notifier deno@%version% 1>&2
call :find && goto installed
set "DENO_INSTALL=%root%.deno"
powershell -NoProfile -ExecutionPolicy Bypass -Command "$v = '%version%'; irm https://deno.land/install.ps1 | iex" 1>&2
call :find && goto installed
echo denow: no Deno %version% or newer, and it could not be installed>&2
echo denow: see https://docs.deno.com/runtime/getting_started/installation/>&2
exit /b 1

:installed
echo denow: fetching npm packages>&2
pushd "%root%"
"%deno%" install --frozen --entrypoint mod.ts cli.ts 1>&2 || exit /b 1
popd

:found
for %%d in ("%deno%") do set "PATH=%%~dpd;%PATH%"
if "%~1 %~2"=="task doctor" goto run
"%deno%" eval --no-config --no-lock "Deno.exit(await navigator.gpu?.requestAdapter() ? 0 : 1)" >nul 2>nul && goto run
echo denow: Deno finds no GPU: update the graphics driver; "denow task doctor" tells more>&2
exit /b 1

:run
rem Tasks are the project's, from wherever this is called.
if "%~1"=="task" cd /d "%root%"
"%deno%" %*
exit /b %errorlevel%

rem Sets deno to a binary that runs and is new enough.
:find
for %%f in (deno.exe) do call :try "%%~$PATH:f" && exit /b 0
for /d %%d in ("%root%.deno\node_modules\@deno\*") do call :try "%%~d\deno.exe" && exit /b 0
call :try "%root%.deno\bin\deno.exe"
exit /b

:try
if not exist "%~1" exit /b 1
"%~1" eval --no-config --no-lock "Deno.exit(Deno.version.deno.localeCompare('%version%', 'en', { numeric: true }) < 0 ? 1 : 0)" >nul 2>nul || exit /b 1
set "deno=%~1"
