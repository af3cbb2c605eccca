for (const element of document.querySelectorAll('#address, [data-address]')) element.textContent = location.host
