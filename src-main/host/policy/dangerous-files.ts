/**
 * Files that run something when they are opened. A received one is never opened without asking; the question names the
 * extension that the system will act on, because the name may hide it.
 */
const DANGEROUS_EXTENSIONS: ReadonlySet<string> = new Set(
  `ade adp apk app appimage appref-ms appx appxbundle application asp aspx bas bash bat bin btm cab cer chm cmd cnt com command
  cpl crt csh deb dll dmg desktop diagcab docm dotm drv elf exe fish flatpak flatpakref fxp gadget hlp hpj hta htm html inf ins
  iqy iso isp its jar jnlp job js jse jsp ksh lnk mad maf mag mam maq mar mas mat mau mav maw mcf mda mdb mde mdt mdw mdz mht
  mhtml msc msh msh1 msh2 mshxml msi msix msixbundle msp mst msu ops osd out pcd php pif pkg pl plg potm ppam ppsm pptm prf prg
  printerexport ps1 ps1xml ps2 ps2xml psc1 psc2 psd1 psm1 pssc py pyc pyo pyw pyz pyzw rb reg rpm run scf scpt scptd scr sct
  search-ms searchconnector-ms service settingcontent-ms sh shb shs sldm slk snap so svg sys sylk terminal theme themepack tmp
  tool udl url vb vbe vbp vbs vhd vhdx vsmacros vsw vxd webloc website wim workflow ws wsc wsf wsh wspx xbap xht xhtml xlam xll
  xlm xlsm xltm xnk xpi xrm-ms xsl zsh`.split(/\s+/),
);

/**
 * The extension that the system acts on when it runs something, or null for an ordinary file. Windows drops dots and
 * spaces at the end of a name and reads `name::$DATA` as `name`, so every part between colons is looked at.
 */
export const dangerousExtension = (fileName: string): string | null => {
  const parts = fileName
    .normalize("NFKC")
    .replace(/[\p{Cc}\p{Cf}]/gu, "")
    .split(":");
  for (const part of parts) {
    const extension = part
      .replace(/[.\s]+$/u, "")
      .match(/\.([^.]*)$/)?.[1]
      ?.trim()
      .toLowerCase();
    if (extension !== undefined && DANGEROUS_EXTENSIONS.has(extension)) return extension;
  }
  return null;
};
